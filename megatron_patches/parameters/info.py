"""What every parameter knows about itself: its slice of the whole and how it is drawn.

Parameters are drawn on the CPU in fp32 from sha256(seed, name) in blocks of rows, and every rank keeps its slice. So a
layout cannot change the initial weights, and no rank ever holds a whole matrix.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor, nn

from megatron_patches.parameters.row import ParameterRow
from megatron_patches.parameters.tensor_slice import TensorSlice

ROWS_PER_BLOCK = 256  # 256 x 14,336 fp32 numbers are 14 MB; part of the definition of every run's initial weights


@dataclass(frozen=True)
class ParameterInfo:
    """A parameter's row in its architecture's table, and what this rank holds of it."""

    row: ParameterRow
    slice: TensorSlice
    tensor_replicated: bool = True
    """every tensor-parallel rank holds the same values"""
    partial_gradient: bool = False
    """each tensor-parallel rank computes a part of the gradient, and they must be summed"""

    @classmethod
    def on_rank(cls, row: ParameterRow, part: int, parts: int, sequence_parallel: bool) -> "ParameterInfo":
        """What rank `part` of so many tensor-parallel ranks holds, which may share the tokens too."""
        whole = row.cut_dimension(parts) is None
        shares = {"features": parts > 1, "tokens": sequence_parallel, None: False}[row.partial]
        return cls(row, row.slice_of(part, parts), tensor_replicated=whole, partial_gradient=whole and shares)


def describe(parameter: nn.Parameter, info: ParameterInfo) -> None:
    """Attach the description; every parameter of a model has one."""
    assert parameter.numel() == info.slice.elements
    parameter.trainyard_info = info  # type: ignore[attr-defined]


def info_of(parameter: nn.Parameter) -> ParameterInfo:
    """The description attached by `describe`."""
    info = getattr(parameter, "trainyard_info", None)
    assert isinstance(info, ParameterInfo), "a parameter was made outside the layers of a model"
    return info


def is_first_stages(parameter: nn.Parameter) -> bool:
    """Whether this stage is the one that counts: of a tied parameter the first that holds it (DeepSpeed's mark)."""
    return not getattr(parameter, "ds_pipe_replicated", False)


def draw(row: ParameterRow, box: TensorSlice, seed: int) -> Tensor:
    """The initial values of one slice, fp32 on the CPU, in the box's shape; equal on every layout."""
    shape = box.shape
    if row.initial == "zeros":
        return torch.zeros(shape)
    if row.initial == "ones":
        return torch.ones(shape)
    return torch.cat([block * row.deviation for block in _normal_rows(row.name, box, seed)]).view(shape)


def _normal_rows(name: str, box: TensorSlice, seed: int) -> Iterator[Tensor]:
    """Blocks of rows, all dimensions but the last taken together as rows (a vector's elements are its rows)."""
    rows, columns = prod(box.global_shape[:-1] or box.global_shape), box.global_shape[1:] and box.global_shape[-1:]
    columns_here = tuple(slice(start, stop) for start, stop in box.box[1:] and box.box[-1:])
    for first, last in row_ranges(box):
        for block in range(first // ROWS_PER_BLOCK, -(-last // ROWS_PER_BLOCK)):
            start, stop = block * ROWS_PER_BLOCK, min((block + 1) * ROWS_PER_BLOCK, rows)
            generator = torch.Generator().manual_seed(derive_seed(seed, "initial", name, block))
            drawn = torch.randn((stop - start, *columns), generator=generator)
            yield drawn[(slice(max(first, start) - start, min(last, stop) - start), *columns_here)]


def row_ranges(box: TensorSlice) -> list[tuple[int, int]]:
    """Rows of the box, all dimensions but the last taken together as rows; neighbours joined."""
    shape, ranges = box.global_shape[:-1] or box.global_shape, box.box[:-1] or box.box
    found: list[tuple[int, int]] = []
    for outer in product(*(range(*each) for each in ranges[:-1])):
        base = 0
        for index, size in zip(outer, shape, strict=False):
            base = base * size + index
        start, stop = (base * shape[-1] + edge for edge in ranges[-1])
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a list of words and numbers (sha256 over their text)."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
