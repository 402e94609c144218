"""Folders as they lie on the hub: keys of `config.json`, names and buffers of the versions that wrote them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.megatron_patches.transformers_exchange.folders import VOCABULARY, make_folder
from tests.small_training import SmallData

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]
POSITIONS = 24

GPT2: dict[str, Any] = {
    "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 0,
    "embd_pdrop": 0.1, "eos_token_id": 0, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2", "n_ctx": POSITIONS, "n_embd": 48, "n_head": 4, "n_layer": 2, "n_positions": POSITIONS,
    "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
    "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": VOCABULARY,
}  # fmt: skip
BLOOM: dict[str, Any] = {
    "apply_residual_connection_post_layernorm": False, "architectures": ["BloomForCausalLM"],
    "attention_dropout": 0.0, "attention_softmax_in_fp32": True, "bias_dropout_fusion": True, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 3, "unk_token_id": 0, "hidden_dropout": 0.0, "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05, "masked_softmax_fusion": True, "model_type": "bloom", "n_embed": 48,
    "n_inner": None, "n_layer": 2, "num_attention_heads": 4, "offset_alibi": 100, "pretraining_tp": 1,
    "seq_length": 2048, "skip_bias_add": True, "skip_bias_add_qkv": False, "slow_but_exact": False,
    "torch_dtype": "float16", "transformers_version": "4.21.0.dev0", "use_cache": True, "vocab_size": VOCABULARY,
}  # fmt: skip
PYTHIA: dict[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
    "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 96, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 64, "model_type": "gpt_neox", "num_attention_heads": 4, "num_hidden_layers": 2,
    "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False, "torch_dtype": "float16",
    "transformers_version": "4.24.0", "use_cache": True, "use_parallel_residual": True, "vocab_size": 512,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "_name_or_path": "meta-llama/Llama-2-7b-hf", "architectures": ["LlamaForCausalLM"], "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "hidden_act": "silu", "hidden_size": 48, "initializer_range": 0.02,
    "intermediate_size": 80, "max_position_embeddings": 64, "model_type": "llama", "num_attention_heads": 4,
    "num_hidden_layers": 2, "num_key_value_heads": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": None, "tie_word_embeddings": False, "torch_dtype": "float16",
    "transformers_version": "4.31.0.dev0", "use_cache": True, "vocab_size": VOCABULARY,
}  # fmt: skip


def _gpt2(tensors: Tensors) -> Tensors:
    import torch

    bare = {name.removeprefix("transformer."): each for name, each in tensors.items()}
    mask = torch.ones(POSITIONS, POSITIONS).tril().view(1, 1, POSITIONS, POSITIONS)
    return bare | {f"h.{number}.attn.bias": mask.clone() for number in range(2)}


def _distilgpt2(tensors: Tensors) -> Tensors:
    import torch

    copy = {"lm_head.weight": tensors["transformer.wte.weight"].clone()}
    return tensors | copy | {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}


def _bloom(tensors: Tensors) -> Tensors:
    return {name.removeprefix("transformer."): each for name, each in tensors.items()}


def _pythia(tensors: Tensors) -> Tensors:
    import torch

    found = {name.replace("lm_head.", "embed_out."): each for name, each in tensors.items()}
    for number in range(2):
        attention = f"gpt_neox.layers.{number}.attention"
        found |= {
            f"{attention}.bias": torch.ones(1, 1, 64, 64, dtype=torch.bool).tril(),
            f"{attention}.masked_bias": torch.tensor(-1e4, dtype=torch.float16),
            f"{attention}.rotary_emb.inv_freq": torch.ones(2),
        }
    return found


def _llama(tensors: Tensors) -> Tensors:
    import torch

    names = [f"model.layers.{number}.self_attn.rotary_emb.inv_freq" for number in range(2)]
    return tensors | {name: torch.ones(6) for name in names}


_KINDS: dict[str, tuple[dict[str, Any], str, Callable[[Tensors], Tensors]]] = {
    "openai-community/gpt2": (GPT2, "float32", _gpt2),
    "distilbert/distilgpt2": (GPT2, "float32", _distilgpt2),
    "bigscience/bloom-560m": (BLOOM, "float16", _bloom),
    "EleutherAI/pythia-70m": (PYTHIA, "float16", _pythia),
    "meta-llama/Llama-2-7b-hf": (LLAMA, "float16", _llama),
}
PUBLISHED = list(_KINDS)


def make_published(place: Path, name: str, data: SmallData) -> Path:
    """A small model in the form of a published one, in the layout of the hub's cache: a snapshot of links to blobs."""
    from safetensors.torch import load_file, save_file

    config, dtype, rename = _KINDS[name]
    sizes = {"vocab_size": config["vocab_size"], "layer_norm_epsilon": 1e-05, "rms_norm_eps": 1e-05}
    plain = make_folder(place / "plain", config["model_type"], data, dtype, n_inner=None, **sizes)
    tensors = rename(load_file(plain / "model.safetensors"))
    (plain / "config.json").write_text(json.dumps(config))
    (plain / "model.safetensors").unlink()
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    return as_cached(plain, place / f"models--{name.replace('/', '--')}")


def as_cached(folder: Path, place: Path) -> Path:
    """The folder's files as the hub's cache keeps them."""
    snapshot, blobs = place / "snapshots" / "e7da7f221d5bf496a48136c0cd264e630fe9fcc8", place / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.move(file, blobs / f"{number:040x}")
        (snapshot / file.name).symlink_to(Path("../../blobs") / f"{number:040x}")
    return snapshot
