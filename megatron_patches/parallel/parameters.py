"""What every parameter knows about itself: its slice of the whole and how it is drawn.

Parameters are drawn on the CPU in fp32 from sha256(seed, name) in blocks of rows, and every rank keeps its slice. So a
layout cannot change the initial weights, and no rank ever holds a whole matrix.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from megatron_patches.parallel.tensor_slice import TensorSlice

ROWS_PER_BLOCK = 256  # 256 x 14,336 fp32 numbers are 14 MB; part of the definition of every run's initial weights


@dataclass(frozen=True)
class ParameterInfo:
    """Slice, distribution and replication of one parameter on this rank."""

    slice: TensorSlice
    initial: Literal["normal", "zeros", "ones"]
    deviation: float = 0.0
    tensor_replicated: bool = True  # every tensor-parallel rank holds the same values


def describe(parameter: nn.Parameter, info: ParameterInfo) -> None:
    """Attach the description; every parameter of a Trainyard layer has one."""
    assert parameter.numel() == info.slice.elements
    parameter.trainyard_info = info  # type: ignore[attr-defined]


def info_of(parameter: nn.Parameter) -> ParameterInfo:
    """The description attached by `describe`."""
    info = getattr(parameter, "trainyard_info", None)
    assert isinstance(info, ParameterInfo), "a layer created a parameter without describing it"
    return info


def draw(name: str, info: ParameterInfo, seed: int) -> Tensor:
    """The initial values of one slice, fp32 on the CPU, in the box's shape; equal on every layout."""
    shape = info.slice.shape
    if info.initial == "zeros":
        return torch.zeros(shape)
    if info.initial == "ones":
        return torch.ones(shape)
    return torch.cat([block * info.deviation for block in _normal_rows(name, info.slice, seed)])


def _normal_rows(name: str, box: TensorSlice, seed: int) -> Iterator[Tensor]:
    first, last = box.box[0]
    columns = tuple(slice(start, stop) for start, stop in box.box[1:])
    rows = box.global_shape[0]
    for block in range(first // ROWS_PER_BLOCK, -(-last // ROWS_PER_BLOCK)):
        start, stop = block * ROWS_PER_BLOCK, min((block + 1) * ROWS_PER_BLOCK, rows)
        generator = torch.Generator().manual_seed(derive_seed(seed, "initial", name, block))
        drawn = torch.randn((stop - start, *box.global_shape[1:]), generator=generator)
        yield drawn[(slice(max(first, start) - start, min(last, stop) - start), *columns)]


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a list of words and numbers (sha256 over their text)."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
