"""A tensor of the training state, wherever its elements lie: read a piece at a time, and never whole."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from megatron_patches.checkpoint.files.boxes import SubBox, sub_boxes
from megatron_patches.errors import Damaged
from megatron_patches.parameters.tensor_slice import Range, TensorSlice

PIECE_ELEMENTS = 1 << 24
"""elements of the largest piece that is held in memory: 64 MiB in fp32"""

Reader = Callable[[int, int], Tensor]
"""(first, last) -> elements `first ... last`, one-dimensional, on the CPU"""


@dataclass(frozen=True)
class Stretch:
    """Elements `start ... start + elements` (row-major) of a box; `read` counts from `start`."""

    slice: TensorSlice
    start: int
    elements: int
    read: Reader


@dataclass(frozen=True)
class StateTensor:
    """One parameter's weight, master or moment, of the whole model."""

    name: str
    """canonical name of the parameter"""
    kind: str
    """weight, master, or the optimizer's own name for a moment"""
    shape: tuple[int, ...]
    dtype: torch.dtype
    stretches: tuple[Stretch, ...]

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return prod(self.shape)

    def read(self, start: int, stop: int) -> Tensor:
        """Elements `start ... stop` (row-major), one-dimensional, in the tensor's own type.

        Raises:
            Damaged: not each of them is found exactly once.
        """
        into = torch.empty(stop - start, dtype=self.dtype)
        self.read_into(into, start)
        return into

    def read_into(self, into: Tensor, start: int) -> None:
        """Fills a one-dimensional tensor of the same type with the elements from `start` on.

        Raises:
            Damaged: as `read`.
        """
        stop, copied = start + len(into), 0
        for target in sub_boxes(TensorSlice.whole(self.shape), start, stop):
            into_box = into[target.offset : target.offset + target.slice.elements].view(target.slice.shape)
            for stretch in self.stretches:
                copied += sum(_copy_common(into_box, target, stretch))
        if copied != stop - start:
            raise Damaged(
                f"{copied:,} of elements {start:,} to {stop:,} ({stop - start:,}) of {self.kind} of {self.name} were "
                "found; the checkpoint does not hold each of them exactly once"
            )

    @property
    def piece_elements(self) -> int:
        """As many as fit, in whole rows of the last dimensions that fit."""
        row = self.elements
        for extent in self.shape:
            if row <= PIECE_ELEMENTS:
                break
            row //= extent
        return PIECE_ELEMENTS // row * row


def _copy_common(into_box: Tensor, target: SubBox, stretch: Stretch) -> Iterator[int]:
    """Copy into a target what a stretch holds of it; the number of elements of each copy."""
    for source in sub_boxes(stretch.slice, stretch.start, stretch.start + stretch.elements):
        box = source.slice.intersection(target.slice)
        if box is not None:
            part = _read_box(stretch, source, box)
            into_box[target.slice.local(box)].copy_(part)
            yield part.numel()


def _read_box(stretch: Stretch, source: SubBox, box: tuple[Range, ...]) -> Tensor:
    """A box of a stretch, and of what lies around it only the rest of its rows."""
    local = source.slice.local(box)
    strides = [prod(source.slice.shape[dimension + 1 :]) for dimension in range(len(local))]
    first = sum(each.start * stride for each, stride in zip(local, strides, strict=True))
    last = sum((each.stop - 1) * stride for each, stride in zip(local, strides, strict=True)) + 1
    values = stretch.read(source.offset + first, source.offset + last)
    return values.as_strided([each.stop - each.start for each in local], strides, values.storage_offset())
