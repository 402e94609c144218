"""Small models of transformers with random weights, and the same weights by our canonical names."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megatron_patches.models.encoder.encoder_config import EncoderConfig
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.transformers_exchange.choice import format_of
from tests.megatron_patches.models.theirs import build, config_keys, logits, own_weights

SEQUENCE = 24
SIZES = {"layers": 4, "hidden_size": 48, "attention_heads": 6, "vocab_size": 64}
NO_BIASES = {"norm_bias": False, "attention_bias": False, "mlp_bias": False}
GPT2_124M = GPTConfig(layers=12, hidden_size=768, attention_heads=12, ffn_size=3072, vocab_size=50257)
NEOX = SIZES | {
    "ffn_size": 80, "activation": "gelu", "tied_head": False, "position_embedding": {"name": "rotary", "fraction": 0.25}
}  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """Tokens `[2, sequence]`, logits `[2, sequence, vocabulary]`, and every weight in its global shape.

    The weights lie in one tensor: what goes to another process costs a file descriptor for each, and 64 are allowed.
    """

    model: TransformerConfig
    sequence_length: int
    shapes: dict[str, torch.Size]
    flat: Tensor
    tokens: np.ndarray
    logits: np.ndarray

    @property
    def weights(self) -> dict[str, Tensor]:
        """By our names."""
        sizes = [shape.numel() for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), self.flat.split(sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}

    def changed(self, name: str) -> "Reference":
        """The same with one random weight in place of that of the model."""
        torch.manual_seed(9)
        weights = self.weights | {name: self.weights[name] + torch.randn(self.shapes[name])}
        return replace(self, flat=torch.cat([weight.flatten() for weight in weights.values()]))


def reference(kind: str) -> Reference:
    """transformers' model of this kind and what it says; weights come by the product's format."""
    model_type, model = FAMILY[kind]
    _, form = format_of(model_type)
    rows = 1024 if kind == "gpt2-124m" else SEQUENCE
    theirs = build(model_type, config_keys(form, model, rows), deviation=0.04 if kind == "gpt2-124m" else 0.2)
    tokens = torch.randint(model.vocab_size, (2, SEQUENCE), generator=torch.Generator().manual_seed(1))
    weights = own_weights(form, model, rows, theirs)
    flat = torch.cat([weight.flatten() for weight in weights.values()])
    shapes = {name: weight.shape for name, weight in weights.items()}
    return Reference(model, rows, shapes, flat, tokens.numpy(), logits(theirs, tokens).numpy())


def _neox(parallel: bool) -> GPTConfig:
    return GPTConfig.model_validate(NEOX | {"hidden_size": 96, "parallel_residual": parallel})


def _llama(groups: int) -> GPTConfig:
    return GPTConfig.model_validate(
        SIZES | NO_BIASES | {
            "ffn_size": 80, "key_value_heads": groups, "position_embedding": {"name": "rotary", "theta": 500.0},
            "activation": "swiglu", "norm": "rmsnorm", "norm_epsilon": 1e-6, "tied_head": False,
        }
    )  # fmt: skip


def _encoder(**settings: Any) -> EncoderConfig:
    sizes = SIZES | {"name": "encoder", "ffn_size": 80, "vocab_multiple": 1, "tied_head": False}
    return EncoderConfig.model_validate(sizes | settings)


FAMILY: dict[str, tuple[str, TransformerConfig]] = {
    "gpt2": ("gpt2", GPTConfig.model_validate(SIZES | {"ffn_size": 80})),
    "gpt2-124m": ("gpt2", GPT2_124M),
    "bloom": (
        "bloom",
        GPTConfig.model_validate(SIZES | {"ffn_size": 192, "position_embedding": "alibi", "embedding_norm": True}),
    ),
    "llama": ("llama", _llama(groups=2)),
    "llama-multi-query": ("llama", _llama(groups=1)),  # fewer groups than tensor-parallel ranks
    "eurobert": ("eurobert", _encoder(key_value_heads=2)),
    "eurobert-tied": ("eurobert", _encoder(tied_head=True, mlp_bias=True, decoder_bias=True, attention_bias=True)),
    "neox-parallel": ("gpt_neox", _neox(parallel=True)),
    "neox": ("gpt_neox", _neox(parallel=False)),
}
"""`model_type` and our model"""
