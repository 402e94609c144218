"""A flat stretch of a box, as sub-boxes: what turns "elements 5 to 900 of these rows" into tensor copies."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from megatron_patches.parameters.tensor_slice import Range, TensorSlice


@dataclass(frozen=True)
class SubBox:
    """A box in global coordinates whose elements lie contiguously, from `offset` on, in a flat stretch."""

    slice: TensorSlice
    offset: int


def sub_boxes(whole: TensorSlice, start: int, stop: int) -> Iterator[SubBox]:
    """Cut elements `start ... stop` (row-major) of a box into sub-boxes, in order; n dimensions give at most 2n - 1.

    A stretch that begins inside a row gives the rest of that row, then the full rows, then the beginning of the last.
    """
    offset = 0
    for ranges in _cut(whole.shape, start, stop):
        shifted = tuple((low + begin, high + begin) for (low, high), (begin, _) in zip(ranges, whole.box, strict=True))
        yield SubBox(TensorSlice(whole.global_shape, shifted), offset)
        offset += prod(high - low for low, high in ranges)


def _cut(shape: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[Range, ...]]:
    if start >= stop:
        return
    if len(shape) == 1:
        yield ((start, stop),)
        return
    inner = prod(shape[1:])
    first, into_first = divmod(start, inner)
    last, into_last = divmod(stop, inner)
    if first == last:
        yield from (((first, first + 1), *rest) for rest in _cut(shape[1:], into_first, into_last))
        return
    if into_first:
        yield from (((first, first + 1), *rest) for rest in _cut(shape[1:], into_first, inner))
        first += 1
    if first < last:
        yield ((first, last), *((0, extent) for extent in shape[1:]))
    if into_last:
        yield from (((last, last + 1), *rest) for rest in _cut(shape[1:], 0, into_last))
