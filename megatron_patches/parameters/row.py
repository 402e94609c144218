"""What an architecture says of each of its parameters: everything else that is known of one is derived from this.

Layers, initial weights, gradient norms, optimizers, checkpoints, estimates, imports and patterns of names all go by
the same row. Torch-free.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm, prod
from typing import Literal

from megatron_patches.configuration.divisibility import multiples_near
from megatron_patches.parameters.tensor_slice import TensorSlice

_BLOCK = re.compile(r"((?:[^.]+\.)*?layers)\.(\d+)(?=\.|$)")


Partial = Literal["tokens", "features"]
Counted = Literal["vocabulary", "positions"]


@dataclass(frozen=True)
class Cut:
    """The dimension along which tensor-parallel ranks share a parameter."""

    dimension: int
    setting: str
    """key of the model's section that gives the dimension its size; a size that does not divide is told by it"""
    shared: bool = False
    """where ranks are more than the dimension has entries, several ranks use one: then each holds all of them"""
    resizable: bool = False
    """whether the setting may be any number, so that the nearest that divides is a remedy"""
    multiple: int = 1
    """of which the size is one, whatever a resizable setting says"""
    setting_per_entry: Fraction = Fraction(1)
    """what a resizable setting must be for each entry of the dimension"""
    padded_by: str | None = None
    """key that pads the dimension to a multiple"""

    def divides(self, size: int, parts: int) -> bool:
        """Whether so many ranks can share a dimension of this size."""
        return max(size, parts) % min(size, parts) == 0 if self.shared else size % parts == 0

    def settings_near(self, size: int, multiple: int) -> list[int]:
        """Values of a resizable setting, next to the one of this size, whose sizes are a multiple of a number."""
        near = multiples_near(size, lcm(multiple, self.multiple))
        return [int(each * self.setting_per_entry) for each in near]


@dataclass(frozen=True)
class ParameterRow:
    """One parameter of the whole model; on a rank it is a box of `shape` (`slice_of`)."""

    name: str
    """canonical, the same on every layout. A block's begins with its stack's name and its number: `layers.3.mlp...`,
    `encoder.layers.3.mlp...`; any other layer's name has no dots: `embedding.tokens...`"""
    shape: tuple[int, ...]
    part: str
    """what it is counted under: token_embedding, attention, mlp ..."""
    matrix: bool
    """whether it has rows and columns; the shape does not tell: a fused bias has several sizes"""
    initial: Literal["normal", "zeros", "ones"]
    deviation: float = 0.0
    """standard deviation of what is drawn normally"""
    cut: Cut | None = None
    fused: int | None = None
    """dimension that counts matrices, where several are fused: 0 of a gated MLP's (2, ffn, hidden)"""
    partial: Partial | None = None
    """of what is not cut: tensor-parallel ranks that share the tokens (sequence parallelism), or the heads, each
    compute a part of its gradient"""
    looked_up: bool = False
    """whether a token reads one row of it, and is not multiplied with it"""
    row_for_each: Counted | None = None
    """what dimension 0 has an entry for, token ids or positions: a run that begins from another run's weights may have
    more or fewer of them, and of nothing else"""

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return prod(self.shape)

    @cached_property
    def layer(self) -> str:
        """Canonical prefix of the layer that it belongs to."""
        return layer_of(self.name)

    @property
    def stack(self) -> str | None:
        """Canonical prefix of the stack of blocks that it belongs to (`layers`, `encoder.layers`), if to any."""
        return stack_of(self.layer)

    @property
    def block(self) -> int | None:
        """Number of its block in the stack."""
        return int(self.layer.rpartition(".")[2]) if self.stack else None

    @property
    def is_row_parallel(self) -> bool:
        """Whether it is a matrix of whose inputs ranks have a part each, so that they add up its outputs."""
        return self.matrix and self.cut is not None and self.cut.dimension == len(self.shape) - 1

    def cut_dimension(self, parts: int) -> int | None:
        """The dimension that so many tensor-parallel ranks share, None where each holds everything."""
        if self.cut is None or (self.cut.shared and self.shape[self.cut.dimension] < parts):
            return None
        return self.cut.dimension

    def slice_of(self, part: int, parts: int) -> TensorSlice:
        """The box of rank `part` of `parts`; everything where each holds a copy."""
        dimension = self.cut_dimension(parts)
        if dimension is None:
            return TensorSlice.whole(self.shape)
        return TensorSlice.cut(self.shape, dimension, part, parts)

    def elements_here(self, parts: int) -> int:
        """Numbers of it on each of so many tensor-parallel ranks."""
        return self.elements // (parts if self.cut_dimension(parts) is not None else 1)

    def own_shape(self, box: TensorSlice) -> tuple[int, ...]:
        """The shape that a rank's tensor of this box has in a module: matrices have two dimensions, vectors one."""
        return (prod(box.shape[:-1]), box.shape[-1]) if self.matrix else (prod(box.shape),)


def cuts_of(rows: Iterable[ParameterRow]) -> dict[str, tuple[Cut, int]]:
    """What tensor-parallel ranks share, by the key that gives it its size: the cut and the size, each once."""
    found: dict[str, tuple[Cut, int]] = {}
    for row in rows:
        if row.cut is not None and row.cut.setting not in found:
            found[row.cut.setting] = (row.cut, row.shape[row.cut.dimension])
    return found


def layer_of(name: str) -> str:
    """The layer's name in a parameter's: through a block's number, else the first word."""
    block = _BLOCK.match(name)
    return block[0] if block else name.partition(".")[0]


def stack_of(layer: str) -> str | None:
    """The stack's name in a block's (`encoder.layers` of `encoder.layers.3`); None of what is no block."""
    block = _BLOCK.fullmatch(layer)
    return block[1] if block else None


def of_any_block(name: str) -> str:
    """A parameter's name with a star for its block's number: what a person writes to mean it in every block."""
    return _BLOCK.sub(r"\1.*", name, count=1)


@dataclass(frozen=True)
class PathLayer:
    """A layer with parameters in its place in the forward pass; a shared one has several places."""

    name: str
    table: bool = False
    """whether it is a table of the vocabulary, which `pipeline_partition: transformer|embedding` counts as a block"""
    leads: bool = False
    """whether it must be on the stage of the layer behind it, which reads what it leaves there"""


def path_of(rows: Sequence[ParameterRow]) -> list[str]:
    """The layers of a table, each once, in its order."""
    return list(dict.fromkeys(row.layer for row in rows))
