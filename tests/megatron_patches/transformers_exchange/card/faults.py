"""Mistakes of an exporter, and some ways of them: each a format that is wrong alike in both directions wherever
that can be, so that going there and back cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from data_tools.samples.lengths import SampleLengths
from megatron_patches.models.interface.transformers_format import FilledTensor, TensorPair, TransformersFormat
from megatron_patches.models.transformer.transformers_formats.rearranging import same
from megatron_patches.parameters.row import ParameterRow

if TYPE_CHECKING:
    from torch import Tensor

PairChange = Callable[[TensorPair, ParameterRow], TensorPair | None]


@dataclass(frozen=True)
class Fault:
    """One mistake."""

    model: str
    """of `exports.MODELS`"""
    check: str
    """what catches it"""
    says: str
    """within the message"""
    pair: PairChange = lambda pair, row: pair
    config: dict[str, Any] | None = None
    """keys of `config.json` with other values"""
    filled: tuple[FilledTensor, ...] = ()
    """further tensors"""


class Faulty(TransformersFormat):
    """A format with one mistake."""

    def __init__(self, right: TransformersFormat, fault: Fault) -> None:
        self._right, self._fault = right, fault
        self.model_type = right.model_type  # type: ignore[misc]
        self.class_name = right.class_name  # type: ignore[misc]
        self.base = right.base  # type: ignore[misc]
        self.task = right.task  # type: ignore[misc]

    def obstacles(self, model: Any) -> list[Any]:
        return self._right.obstacles(model)

    def config(self, model: Any, lengths: SampleLengths) -> dict[str, Any]:
        return self._right.config(model, lengths) | (self._fault.config or {})

    def read(self, config: Any) -> Any:
        return self._right.read(config)

    def pairs(self, model: Any, rows: Sequence[ParameterRow]) -> list[TensorPair]:
        changed = [self._fault.pair(*each) for each in zip(self._right.pairs(model, rows), rows, strict=True)]
        return [each for each in changed if each is not None]

    def filled(self, model: Any) -> list[FilledTensor]:
        return [*self._right.filled(model), *self._fault.filled]


def of(ending: str, change: PairChange) -> PairChange:
    """The change of the pairs whose parameter's name ends so; others stay."""
    return lambda pair, row: change(pair, row) if pair.ours.endswith(ending) else pair


def reordered(there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> PairChange:
    """Our tensor is put into another order first, and back at the end."""
    return lambda pair, row: replace(
        pair, split=lambda ours: pair.split(there(ours)), join=lambda parts: back(pair.join(parts))
    )


def _named(pair: TensorPair, row: ParameterRow) -> TensorPair:
    """The embedding norm goes by names that transformers does not have."""
    return replace(pair, theirs=tuple(name.replace("word_embeddings_layernorm", "norm") for name in pair.theirs))


def _padded(pair: TensorPair, row: ParameterRow) -> TensorPair:
    return replace(pair, split=lambda ours: [ours], join=lambda parts: parts[0][:61])


def _interleaved(rows: Tensor) -> Tensor:
    """(head; first half, second half) of the turned features as pairs side by side: the order of Meta's own files."""
    return rows.unflatten(-2, (2, -1)).transpose(-2, -3).flatten(-3, -2)


def _halved(rows: Tensor) -> Tensor:
    return rows.unflatten(-2, (-1, 2)).transpose(-2, -3).flatten(-3, -2)


FIRST_OUTPUT = "layers.0.attention.output.linear.weight"
FAULTS: dict[str, Fault] = {
    "a square matrix is not transposed": Fault(
        "gpt2", "logits", "differ by", of(FIRST_OUTPUT, lambda pair, row: same(pair.ours, pair.theirs[0], row.shape))
    ),
    "gate and up are swapped": Fault(
        "llama", "logits", "differ by",
        of("mlp.up.linear.weight", reordered(lambda ours: ours.flip(0), lambda ours: ours.flip(0))),
    ),
    "rotary halves are interleaved": Fault(
        "llama", "logits", "differ by", of("attention.query.linear.weight", reordered(_interleaved, _halved))
    ),
    "positions are off by one": Fault(
        "gpt2", "logits", "differ by",
        of("positions.weight", reordered(lambda ours: ours.roll(1, 0), lambda ours: ours.roll(-1, 0))),
    ),
    "a bias is missing": Fault("llama-biases", "loading", "q_proj.bias", config={"attention_bias": False}),
    "a bias is forgotten": Fault(
        "gpt2", "tensors", "layers.1.mlp.up.linear.bias has no counterpart",
        of("layers.1.mlp.up.linear.bias", lambda pair, row: None),
    ),
    "the norm's epsilon is another": Fault("llama", "logits", "differ by", config={"rms_norm_eps": 1e-5}),
    "the head is not said to be untied": Fault(
        "gpt2-untied", "loading", "are one parameter, and stored twice", config={"tie_word_embeddings": True}
    ),
    "the head is said to be untied": Fault(
        "gpt2", "loading", "lm_head.weight is not in it", config={"tie_word_embeddings": False}
    ),
    "rows of padding are written": Fault(
        "gpt2", "logits", "has 64 of them, and ours 61",
        of("table.weight", _padded), config={"vocab_size": 64},
    ),
    "groups of keys and values are permuted": Fault(
        "llama", "logits", "differ by",
        of("key_value.linear.weight", reordered(lambda ours: ours.flip(0), lambda ours: ours.flip(0))),
    ),
    "an id is beyond the vocabulary": Fault(
        "llama", "loading", "does not take the folder: Padding_idx must be", config={"pad_token_id": 61}
    ),
    "queries and keys have each other's biases": Fault(
        "gpt2", "logits", "differ by",
        of("layers.0.attention.query_key_value.linear.bias",
           reordered(lambda ours: ours[:, [1, 0, 2]], lambda ours: ours[:, [1, 0, 2]])),
    ),
    "the scale is missing": Fault("gpt2", "logits", "differ by", config={"scale_attn_weights": False}),
    "the norms are placed elsewhere": Fault(
        "bloom", "logits", "differ by", config={"apply_residual_connection_post_layernorm": True}
    ),
    "blocks are added one after the other": Fault(
        "gpt_neox", "logits", "differ by", config={"use_parallel_residual": False}
    ),
    "the embedding norm is dropped": Fault(
        "bloom", "loading", "transformer.norm.weight",
        lambda pair, row: _named(pair, row),
        filled=(
            FilledTensor("transformer.word_embeddings_layernorm.weight", (48,), 1.0),
            FilledTensor("transformer.word_embeddings_layernorm.bias", (48,)),
        ),
    ),
    "an encoder's matrix is transposed": Fault(
        "eurobert", "logits", "differ by",
        of(FIRST_OUTPUT, reordered(lambda ours: ours.T.contiguous(), lambda ours: ours.T.contiguous())),
    ),
    "an encoder's gate and up are swapped": Fault(
        "eurobert", "logits", "differ by",
        of("mlp.up.linear.weight", reordered(lambda ours: ours.flip(0), lambda ours: ours.flip(0))),
    ),
    "an encoder's norm is lost": Fault(
        "eurobert", "tensors", "final_norm.weight has no counterpart",
        of("final_norm.weight", lambda pair, row: None),
        filled=(FilledTensor("model.norm.weight", (48,), 1.0),),
    ),
    "an encoder's angles are others": Fault(
        "eurobert", "logits", "differ by", config={"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    ),
    "an encoder is causal": Fault("eurobert", "logits", "differ by", config={"is_causal": True}),
    "an encoder's tied decoder is lost": Fault(
        "eurobert-biases", "loading", "lm_head.weight is not in it", config={"tie_word_embeddings": False}
    ),
    "an encoder's decoder is said to be tied": Fault(
        "eurobert", "loading", "are one parameter, and stored twice", config={"tie_word_embeddings": True}
    ),
    "an encoder's decoder bias is lost": Fault(
        "eurobert-biases", "loading", "lm_head.bias (model.safetensors) is no parameter", config={"mlp_bias": False}
    ),
    "the share that is turned is another": Fault(
        "gpt_neox", "logits", "differ by",
        config={"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ),
}  # fmt: skip
