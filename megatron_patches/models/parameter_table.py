"""Every parameter of a GPT: its canonical name, global shape and part, from the configuration alone.

Command lines count parameters and match name patterns with it, without torch; a test holds it to the built model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from megatron_patches.models.model_config import ModelConfig

Part = Literal["token_embedding", "positions", "attention", "mlp", "norms", "head"]


@dataclass(frozen=True)
class ParameterRow:
    """One parameter of the whole model; on a rank it is a box of `shape` (`ParameterInfo.slice`)."""

    name: str
    shape: tuple[int, ...]
    part: Part

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return prod(self.shape)


def is_matrix(name: str) -> bool:
    """Whether a layer gives this parameter rows and columns: a weight of anything but a norm.

    The shape does not tell: a fused bias has several sizes.
    """
    return name.endswith(".weight") and not name.endswith("norm.weight")


def parameter_table(model: ModelConfig, sequence_length: int) -> list[ParameterRow]:
    """All parameters, first layer to last, a tied head's once; a position table has `sequence_length` rows."""
    hidden = model.hidden_size
    rows = [ParameterRow("embedding.tokens.table.weight", (model.padded_vocab_size, hidden), "token_embedding")]
    if model.embedding_norm:
        rows += _norm("embedding_norm", hidden, model)
    if model.position_embedding.parameters(sequence_length, hidden):
        rows.append(ParameterRow("positions.weight", (sequence_length, hidden), "positions"))
    for index in range(model.layers):
        rows += _block(f"layers.{index}", model)
    if model.norm_placement == "pre":
        rows += _norm("final_norm", hidden, model)
    if not model.tied_head:
        rows.append(ParameterRow("head.logits.linear.weight", (model.padded_vocab_size, hidden), "head"))
    return rows


def _block(prefix: str, model: ModelConfig) -> Iterator[ParameterRow]:
    yield from _norm(f"{prefix}.attention_norm", model.hidden_size, model)
    yield from _attention(f"{prefix}.attention", model)
    yield from _norm(f"{prefix}.mlp_norm", model.hidden_size, model)
    yield from _mlp(f"{prefix}.mlp", model)


def _attention(prefix: str, model: ModelConfig) -> Iterator[ParameterRow]:
    """Queries, keys and values in one matrix, a head's rows together; grouped keys and values in one of their own."""
    hidden, size = model.hidden_size, model.head_size
    if model.groups == model.attention_heads:
        outputs: dict[str, tuple[int, ...]] = {"query_key_value": (model.attention_heads, 3, size)}
    else:
        outputs = {"query": (model.attention_heads, size), "key_value": (model.groups, 2, size)}
    for name, shape in outputs.items():
        yield from _linear(f"{prefix}.{name}", hidden, shape, model.attention_bias, "attention")
    if model.query_key_norm:
        yield from _norm(f"{prefix}.query_norm", size, model)
        yield from _norm(f"{prefix}.key_norm", size, model)
    yield from _linear(f"{prefix}.output", hidden, (hidden,), model.attention_bias, "attention")


def _mlp(prefix: str, model: ModelConfig) -> Iterator[ParameterRow]:
    up = (2, model.ffn_size) if model.gated else (model.ffn_size,)
    yield from _linear(f"{prefix}.up", model.hidden_size, up, model.mlp_bias, "mlp")
    yield from _linear(f"{prefix}.down", model.ffn_size, (model.hidden_size,), model.mlp_bias, "mlp")


def _linear(prefix: str, inputs: int, outputs: tuple[int, ...], bias: bool, part: Part) -> Iterator[ParameterRow]:
    yield ParameterRow(f"{prefix}.linear.weight", (*outputs, inputs), part)
    if bias:
        yield ParameterRow(f"{prefix}.linear.bias", outputs, part)


def _norm(prefix: str, features: int, model: ModelConfig) -> Iterator[ParameterRow]:
    yield ParameterRow(f"{prefix}.weight", (features,), "norms")
    if model.norm_bias:  # never with RMSNorm, which the configuration refuses
        yield ParameterRow(f"{prefix}.bias", (features,), "norms")
