"""Small checkpoints with random weights, and their folders of transformers, written by a format as it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from megatron_patches.checkpoint.files.state_tensor import StateTensor, Stretch
from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.parameters.tensor_slice import TensorSlice
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.text import CardText

if TYPE_CHECKING:
    from torch import Tensor

    from megatron_patches.transformers_exchange.card.card import Card
    from megatron_patches.transformers_exchange.card.source import Source

SEQUENCE = 40
MASK = 7
"""id that stands for a masked token"""
SIZES = {"layers": 2, "hidden_size": 48, "attention_heads": 6, "vocab_size": 61, "vocab_multiple": 8}
NO_BIASES = {"norm_bias": False, "attention_bias": False, "mlp_bias": False}
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"ffn_size": 80},
    "gpt2-no-biases": {"ffn_size": 80, **NO_BIASES},
    "gpt2-untied": {"ffn_size": 80, "tied_head": False},
    "bloom": {"ffn_size": 192, "position_embedding": "alibi", "embedding_norm": True},
    "llama": {
        **NO_BIASES, "ffn_size": 80, "key_value_heads": 2, "position_embedding": {"name": "rotary", "theta": 500.0},
        "activation": "swiglu", "norm": "rmsnorm", "norm_epsilon": 1e-6, "tied_head": False,
    },
    "llama-biases": {
        **NO_BIASES, "attention_bias": True, "ffn_size": 80, "key_value_heads": 2, "position_embedding": "rotary",
        "activation": "swiglu", "norm": "rmsnorm",
    },
    "eurobert": {
        "name": "encoder", "ffn_size": 96, "key_value_heads": 2, "tied_head": False,
        "position_embedding": {"name": "rotary", "theta": 500.0},
    },
    "eurobert-biases": {
        "name": "encoder", "ffn_size": 96, "decoder_bias": True, "attention_bias": True, "activation": "geglu",
    },
    "gpt_neox": {
        "ffn_size": 80, "hidden_size": 96, "activation": "gelu", "tied_head": False, "parallel_residual": True,
        "position_embedding": {"name": "rotary", "fraction": 0.25},
    },
}  # fmt: skip


def run_of(model: str, precision: str = "fp32") -> RunConfig:
    """A run with a small model."""
    return RunConfig.model_validate(
        {
            "name": "tr1a-1M-x", "family": "tr1-x", "why": "a test", "model": SIZES | MODELS[model],
            "data": {"path": "x", "tokenizer": "x", "split": "1", "sequence_length": SEQUENCE},
            "training": {"steps": 1, "global_batch_size": 1, "micro_batch_size": 1, "precision": precision},
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "schedule": {"name": "constant"},
            "checkpoint": {"every_steps": 1},
            "objective": {"name": "masked_lm" if MODELS[model].get("name") == "encoder" else "causal"},
        }
    )  # fmt: skip


def format_of_run(config: RunConfig, model: str) -> TransformersFormat:
    """The format that the model is named for."""
    formats = config.architecture.transformers_formats()
    (found,) = (each for each in formats if each.model_type == model.partition("-")[0])
    assert found.obstacles(config.model) == []
    return found


def random_source(config: RunConfig) -> Source:
    """Weights of which each decides something: no bias is 0, no norm is 1."""
    import torch

    from megatron_patches.parameters.torch_dtypes import PRECISIONS
    from megatron_patches.transformers_exchange.card.source import Source

    draw = torch.Generator().manual_seed(5)
    dtype = PRECISIONS[config.training.precision]
    weights = {}
    for row in config.parameters:
        values = torch.randn(row.shape, generator=draw) * (0.3 if row.matrix else 0.5) + (row.initial == "ones")
        weights[row.name] = state_tensor(row.name, values.to(dtype))
    return Source("a" * 64, weights)


def state_tensor(name: str, values: Tensor) -> StateTensor:
    """A weight in memory, as one of a checkpoint."""
    flat, shape = values.flatten(), tuple(values.shape)
    stretch = Stretch(TensorSlice.whole(shape), 0, flat.numel(), lambda first, last: flat[first:last].clone())
    return StateTensor(name, "weight", shape, values.dtype, (stretch,))


def their_tensors(source: Source, format: TransformersFormat, config: RunConfig) -> dict[str, Tensor]:
    """What the folder holds."""
    import torch

    found = {}
    for pair in format.pairs(config.model, config.parameters):
        parts = pair.split(source.read(pair.ours))
        found |= {name: part.contiguous() for name, part in zip(pair.theirs, parts, strict=True)}
    (dtype,) = {each.dtype for each in source.weights.values()}
    filled = format.filled(config.model)
    return found | {each.name: torch.full(each.shape, each.value, dtype=dtype) for each in filled}


def write_folder(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Path:
    """A folder in one file of weights."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def their_config(format: TransformersFormat, config: RunConfig) -> dict[str, Any]:
    """`config.json`, with what every format has."""
    precision = {"fp32": "float32", "bf16": "bfloat16"}[config.training.precision]
    return {
        "architectures": [format.class_name], "model_type": format.model_type, "dtype": precision,
        "vocab_size": config.model.vocabulary, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
        "mask_token_id": MASK,
        "tie_word_embeddings": getattr(config.model, "tied_head", True),
        **format.config(config.model, config.lengths),
    }  # fmt: skip


def random_text(config: RunConfig) -> CardText:
    """520 positions of any ids."""
    draw = np.random.default_rng(3)
    return CardText(draw.integers(config.model.vocabulary, size=(13, SEQUENCE)), "random ids", MASK)


def export(folder: Path, source: Source, format: TransformersFormat, config: RunConfig) -> Path:
    """The folder that a format makes of a checkpoint."""
    return write_folder(folder, their_tensors(source, format, config), their_config(format, config))


def card_of(
    folder: Path, source: Source, format: TransformersFormat, config: RunConfig, by_block: bool = False
) -> Card:
    """What the card says of a folder."""
    from megatron_patches.transformers_exchange.card.proof import prove

    return prove(source, folder, format, config, random_text(config), by_block, "tools/export-hf RUN@1 FOLDER")
