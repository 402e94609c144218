"""What was found in another program's checkpoint, before any name is understood."""

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from megatron_patches.checkpoint.files.state_tensor import Reader


@dataclass(frozen=True)
class ShardStretch:
    """Elements `start ... start + elements` of a flattened shard; `read` counts from `start`."""

    start: int
    elements: int
    read: Reader


@dataclass(frozen=True)
class Shard:
    """What one tensor-parallel rank holds of a parameter; the stretches, in order, are all of it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    stretches: tuple[ShardStretch, ...]


@dataclass(frozen=True)
class ForeignTensor:
    """One of their parameters, of one kind."""

    name: str
    """theirs"""
    kind: str
    """weight, master, or the optimizer's name of a moment"""
    shards: tuple[Shard, ...]
    """of each tensor-parallel rank"""
    padding_removed: bool = False
    """a table without the rows that only pad its vocabulary; DeepSpeed loads zeros there"""

    @property
    def dtype(self) -> torch.dtype:
        """The type that holds every rank's elements exactly."""
        return functools.reduce(torch.promote_types, (shard.dtype for shard in self.shards))


@dataclass(frozen=True)
class ForeignProgress:
    """How far they say they were; None where they do not say."""

    step: int | None
    samples: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A checkpoint as it lies there; tensors are read when they are asked for."""

    format: str
    tensors: list[ForeignTensor]
    progress: ForeignProgress
    optimizer_steps: int | None
    """updates that the moments come from; None without moments, or where the optimizer does not count"""
    layout: dict[str, int | bool]
    """tensor, pipeline, data and zero_stage of the ranks that wrote it"""
    settings: dict[str, Any] = field(default_factory=dict)
    """their command line, where they save it"""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """settings of their optimizer's first group, where they are known"""


def whole_shard(tensor: Tensor) -> Shard:
    """A shard that lies in one tensor."""
    return Shard(tuple(tensor.shape), tensor.dtype, (ShardStretch(0, tensor.numel(), reader_of(tensor)),))


def reader_of(tensor: Tensor, offset: int = 0) -> Reader:
    """Reads elements of a flattened tensor from `offset` on."""
    flat = tensor.detach().reshape(-1)

    def read(first: int, last: int) -> Tensor:
        return flat[offset + first : offset + last]

    return read
