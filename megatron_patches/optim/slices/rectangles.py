"""A parameter as matrices, and a rank's stretch of it as rectangles of rows and columns.

Columns are the last dimension, rows all others together, in their order. Under ZeRO a rank's stretch begins and ends
within rows: a run of rows is then a rest of one, whole ones, and a beginning of one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from megatron_patches.optim.slices.fragment import Fragment
from megatron_patches.parameters.info import ParameterInfo, row_ranges


@dataclass(frozen=True)
class Matrices:
    """The whole parameter: `count` matrices of the same shape, whose rows may alternate (query, key, value)."""

    rows: int
    """rows of all matrices together"""
    columns: int
    count: int
    row_stride: int
    """rows that follow each other in one matrix"""

    @classmethod
    def of(cls, info: ParameterInfo) -> "Matrices":
        """The matrices of a parameter with an input dimension behind its output dimensions."""
        *leading, columns = info.slice.global_shape
        if info.row.fused is None:
            return cls(prod(leading), columns, 1, prod(leading))
        return cls(prod(leading), columns, leading[info.row.fused], prod(leading[info.row.fused + 1 :]))

    @property
    def rows_each(self) -> int:
        """Rows of one matrix."""
        return self.rows // self.count

    @property
    def elements(self) -> int:
        """Elements of all matrices."""
        return self.rows * self.columns

    def matrix_of_rows(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Number of the matrix that each row belongs to, `[stop - start]`, int64."""
        return torch.arange(start, stop, device=device) // self.row_stride % self.count

    def by_matrix(self, values: Tensor) -> Tensor:
        """A view of `[rows, ...]` as `[runs, count, row_stride, ...]`: dimension 1 counts matrices."""
        return values.view(-1, self.count, self.row_stride, *values.shape[1:])


@dataclass(frozen=True)
class Rectangle:
    """Rows `rows` and columns `columns` of the whole parameter, which lie together in a fragment's tensor."""

    offset: int
    rows: tuple[int, int]
    columns: tuple[int, int]

    def of(self, tensor: Tensor) -> Tensor:
        """Its values as a view `[rows, columns]` of the fragment's tensor, or of one laid out like it."""
        rows, columns = self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]
        return tensor.detach().view(-1).narrow(0, self.offset, rows * columns).view(rows, columns)

    def within(self, whole: Tensor) -> Tensor:
        """The same place of a whole `[rows, columns]` tensor, as a view."""
        return whole[self.rows[0] : self.rows[1], self.columns[0] : self.columns[1]]


def rectangles(fragment: Fragment) -> list[Rectangle]:
    """The rectangles of a fragment, in the order of its elements."""
    box = fragment.info.slice
    first_column, last_column = box.box[-1]
    width, first, last = last_column - first_column, fragment.start, fragment.start + fragment.elements
    found = []
    row_here = 0
    for start, stop in row_ranges(box):
        run_start = row_here * width
        low, high = max(first, run_start), min(last, run_start + (stop - start) * width)
        row_here += stop - start
        for begin, end in _row_pieces(low - run_start, high - run_start, width):
            row, column = divmod(begin, width)
            rows = (start + row, start + row + max(1, (end - begin) // width))
            columns = (first_column + column, first_column + column + min(width, end - begin))
            found.append(Rectangle(fragment.offset + run_start + begin - first, rows, columns))
    return found


def _row_pieces(start: int, stop: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut `start ... stop` of a row-major run into a rest of a row, whole rows, and a beginning of a row."""
    if start >= stop:
        return
    first_whole, last_whole = -(-start // width) * width, stop // width * width
    if first_whole > last_whole:  # within one row
        yield start, stop
        return
    edges = (start, first_whole, last_whole, stop)
    yield from ((low, high) for low, high in pairwise(edges) if low < high)
