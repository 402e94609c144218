"""The stream between layers: what is sent where, and in which positions."""

from dataclasses import dataclass

import pytest
import torch

from megatron_patches.batch.fields import DOCUMENTS, POSITIONS, TOKENS, Field, ModelInputs
from megatron_patches.batch.stream import Boundary, plan_boundaries

HIDDEN = Field("hidden", ("tokens", "batch", "hidden"), "float", gradient=True)
OTHER = Field("other", ("tokens", "batch", "hidden"), "float", gradient=True)
LOGITS = Field("logits", ("tokens", "batch", "vocabulary"), "float", gradient=True)
SECOND = Field("second_tokens", ("batch", "second"))


@dataclass(frozen=True)
class Layer:
    name: str
    reads: tuple[str, ...]
    writes: Field = HIDDEN


def names(inputs: ModelInputs, *layers: Layer) -> list[tuple[str, ...]]:
    return [boundary.names for boundary in plan_boundaries(inputs, layers)]


def test_what_nobody_reads_any_more_is_left_behind() -> None:
    inputs = ModelInputs((TOKENS, POSITIONS, DOCUMENTS), "causal_documents")
    block = ("hidden", "positions", "documents")
    found = names(
        inputs,
        Layer("embedding", ("tokens",)),
        Layer("positions", ("hidden", "positions")),
        Layer("layers.0", block),
        Layer("layers.1", ("hidden", "documents")),
        Layer("head", ("hidden",), LOGITS),
    )
    assert found == [
        ("tokens", "positions", "documents"),
        ("hidden", "positions", "documents"),
        ("hidden", "positions", "documents"),
        ("hidden", "documents"),
        ("hidden",),
        ("logits",),
    ]


def test_what_is_read_late_travels_through_all_before_it_and_the_float_is_first() -> None:
    found = names(
        ModelInputs((SECOND, TOKENS), "causal"),
        Layer("embedding", ("tokens",)),
        Layer("encoder.layers.0", ("hidden",)),
        Layer("embedding", ("hidden", "second_tokens")),
        Layer("head", ("hidden",), LOGITS),
    )
    assert found == [("second_tokens", "tokens"), ("hidden", "second_tokens"), ("hidden", "second_tokens"), ("hidden",),
                     ("logits",)]  # fmt: skip


def test_a_field_that_nobody_gives_is_named() -> None:
    with pytest.raises(AssertionError, match="second_tokens: read by a layer, and neither declared nor written"):
        names(ModelInputs((TOKENS,), "causal"), Layer("embedding", ("tokens", "second_tokens")))


def test_two_floats_are_refused_with_the_layer() -> None:
    """DeepSpeed's pipeline would go through a stage's blocks twice, or mix up its buffers."""
    with pytest.raises(AssertionError, match=r"behind second the stream has the floats \['hidden', 'other'\]"):
        names(
            ModelInputs((TOKENS,), "causal"),
            Layer("first", ("tokens",)),
            Layer("second", ("tokens",), OTHER),
            Layer("head", ("hidden", "other"), LOGITS),
        )


def test_floats_have_gradients_and_integers_none() -> None:
    with pytest.raises(AssertionError, match="mask: DeepSpeed's pipeline fails"):
        Field("mask", ("batch", "tokens"), "float")


def test_packing_goes_by_names() -> None:
    boundary = Boundary(("hidden", "positions"))
    hidden, positions = torch.zeros(2, 3), torch.ones(3, dtype=torch.int64)
    packed = boundary.pack({"positions": positions, "hidden": hidden, "tokens": positions})
    assert isinstance(packed, tuple) and packed[0] is hidden and packed[1] is positions
    assert boundary.unpack(packed) == {"hidden": hidden, "positions": positions}
    alone = Boundary(("hidden",))
    assert alone.pack({"hidden": hidden}) is hidden and alone.unpack(hidden) == {"hidden": hidden}
