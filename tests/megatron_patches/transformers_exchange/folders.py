"""Small models that transformers made, with random weights, in folders that it saved; and runs that fit them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from megatron_patches.configuration.yaml_text import dump_yaml, parse_yaml
from megatron_patches.transformers_exchange.choice import format_of
from tests.megatron_patches.transformers_exchange import masked_data
from tests.small_training import SmallData

VOCABULARY = 384
"""ids of the tokenizer of `SmallData`"""
POSITIONS = 24
_CLASSES = {
    "gpt2": ("GPT2Config", {"n_layer": 2, "n_embd": 48, "n_head": 4, "n_positions": POSITIONS, "n_inner": 80,
                            "resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0}),
    "bloom": ("BloomConfig", {"n_layer": 2, "hidden_size": 48, "n_head": 4}),
    "llama": ("LlamaConfig", {"num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 4,
                              "num_key_value_heads": 2, "intermediate_size": 80, "max_position_embeddings": 64}),
    "eurobert": ("EuroBertConfig", {"num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 4,
                                    "num_key_value_heads": 2, "intermediate_size": 80, "pad_token_id": 385,
                                    "mask_token_id": 384, "max_position_embeddings": 64,
                                    "vocab_size": masked_data.VOCABULARY}),
    "gpt_neox": ("GPTNeoXConfig", {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
                                   "intermediate_size": 96, "max_position_embeddings": 64}),
}  # fmt: skip
FAMILIES = list(_CLASSES)
CONTINUE = [family for family in FAMILIES if family != "eurobert"]
"""families whose folders have the tokenizer of `SmallData`"""


def make_folder(
    folder: Path, family: str, data: SmallData, dtype: str = "float32", shards: bool = False, **changes: Any
) -> Path:
    """A model whose every weight decides something, saved with the tokenizer of the data."""
    import torch
    import transformers

    name, sizes = _CLASSES[family]
    torch.manual_seed(3)
    config = getattr(transformers, name)(
        **{"vocab_size": VOCABULARY, **sizes, "bos_token_id": 0, "eos_token_id": 0, **changes}
    )
    model = automatic_model(family).from_config(config)
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn_like(each) * 0.15 + (1.0 if each.ndim == 1 and each.mean() > 0.5 else 0.0))
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size="40KB" if shards else "1GB")
    for file in (data.folder / "tokenizer").iterdir():
        if file.name != "manifest.json":
            shutil.copy(file, folder / file.name)
    return folder


def automatic_model(family: str) -> Any:
    """The class of transformers that loads a model of the family for what it is made for."""
    import transformers

    fills = format_of(family)[1].task == "fill-mask"
    return transformers.AutoModelForMaskedLM if fills else transformers.AutoModelForCausalLM


def write_run(family: Path, name: str, data: SmallData, folder: Path, *settings: str) -> Path:
    """The YAML of a run whose model is what `tools/import-hf --show` prints of a folder."""
    from megatron_patches.transformers_exchange.shown_folder import shown_folder

    path = data.write(family, name)
    run = parse_yaml(path.read_text(), name)
    run["model"] = parse_yaml(shown_folder(folder), "--show")["model"]
    run["optimizer"] = {"name": "sgd", "learning_rate": 0.5, "momentum": 0.9, "weight_decay": 0.1, "gradient_clip": 0}
    run["schedule"] = {"name": "constant"}
    if run["model"].get("name") == "encoder":  # every token has logits and sees all others, as in transformers
        run["objective"] = {"name": "masked_lm", "masked_logits_only": False, "reset_attention": False}
    path.write_text(dump_yaml(run))
    return path
