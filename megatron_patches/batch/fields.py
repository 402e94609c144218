"""The tensors that a model reads, as an objective declares them. Torch-free.

A declaration is a field's only description: batches are made, packed for a pipeline and unpacked by it.
"""

from dataclasses import dataclass
from typing import Literal

DType = Literal["int64", "float"]
"""`float` is the run's type of activations"""

AttentionKind = Literal["full", "causal", "ranges", "documents", "causal_documents"]
"""Which keys a token sees: all; those up to its own position; those of a range of its own (field `visible`); those of
its own document (field `documents`); those of its own document up to its own position."""


@dataclass(frozen=True)
class Field:
    """One tensor, or one tensor's place in the stream between layers."""

    name: str
    shape: tuple[str | int, ...]
    """`batch`, a number, or the name of a length (`SampleLengths.positions`)"""
    dtype: DType = "int64"
    gradient: bool = False
    """whether gradients flow through it, which floats' alone do"""

    def __post_init__(self) -> None:
        assert self.gradient == (self.dtype == "float"), (
            f"{self.name}: DeepSpeed's pipeline fails in the backward pass of a float tensor without a gradient: send "
            "masks as integers"
        )


TOKENS = Field("tokens", ("batch", "tokens"))
POSITIONS = Field("positions", ("batch", "tokens"))
"""place of each token, where it is not 0, 1, 2 ..."""
VISIBLE = Field("visible", ("batch", "tokens", 2))
"""half-open range of positions whose keys each token sees, its own always in it"""
DOCUMENTS = Field("documents", ("batch", "tokens"))
"""a number of each token's document, the same for all tokens of one and no others of the sample"""
PICKED = Field("picked", ("batch", "picked"))
"""places whose logits are wanted, ascending; where a sample has fewer, any place, whose label has weight 0"""


@dataclass(frozen=True)
class ModelInputs:
    """What an objective gives a model to read."""

    fields: tuple[Field, ...]
    attention: AttentionKind
    """which keys the tokens whose labels count see"""
    within_documents: bool = False
    """whether they see no other document's"""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the fields, in their order."""
        return tuple(field.name for field in self.fields)

    def has(self, field: Field) -> bool:
        """Whether a field is among them."""
        return field.name in self.names
