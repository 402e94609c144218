"""Small models that transformers made, with random weights, in folders that it saved; and runs that fit them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from megatron_patches.configuration.yaml_text import dump_yaml, parse_yaml
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
    "gpt_neox": ("GPTNeoXConfig", {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
                                   "intermediate_size": 96, "max_position_embeddings": 64}),
}  # fmt: skip
FAMILIES = list(_CLASSES)


def make_folder(
    folder: Path, family: str, data: SmallData, dtype: str = "float32", shards: bool = False, **changes: Any
) -> Path:
    """A model whose every weight decides something, saved with the tokenizer of the data."""
    import torch
    import transformers

    name, sizes = _CLASSES[family]
    torch.manual_seed(3)
    config = getattr(transformers, name)(
        **{**sizes, "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, **changes}
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn_like(each) * 0.15 + (1.0 if each.ndim == 1 and each.mean() > 0.5 else 0.0))
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size="40KB" if shards else "1GB")
    for file in (data.folder / "tokenizer").iterdir():
        if file.name != "manifest.json":
            shutil.copy(file, folder / file.name)
    return folder


def write_run(family: Path, name: str, data: SmallData, folder: Path, *settings: str) -> Path:
    """The YAML of a run whose model is what `tools/import-hf --show` prints of a folder."""
    from megatron_patches.transformers_exchange.shown_folder import shown_folder

    path = data.write(family, name)
    run = parse_yaml(path.read_text(), name)
    run["model"] = parse_yaml(shown_folder(folder), "--show")["model"]
    run["optimizer"] = {"name": "sgd", "learning_rate": 0.5, "momentum": 0.9, "weight_decay": 0.1, "gradient_clip": 0}
    run["schedule"] = {"name": "constant"}
    path.write_text(dump_yaml(run))
    return path
