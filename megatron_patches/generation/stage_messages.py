"""Tensors that pipeline stages send each other: the stream from each to the next, results from the last to the first.

Whoever receives knows how many tensors come. A message over the CPU in front of them says their types and shapes, which
only the layers know that made them.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_patches.parallel.process_groups import ProcessGroups

_TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64)
_DIMENSIONS = 6


class StageMessages:
    """What this rank sends and receives: each tensor-parallel rank talks to the one of its number on other stages."""

    def __init__(self, groups: ProcessGroups) -> None:
        self._groups = groups
        layout = groups.layout
        self._distance = layout.tensor * layout.data
        self._speaker = layout.world_size - self._distance
        """of the last stage's ranks the one that sends results"""

    def send_on(self, tensors: Sequence[Tensor]) -> None:
        """To the next stage."""
        self._send(tensors, self._groups.rank + self._distance)

    def take_over(self, count: int) -> list[Tensor]:
        """What the stage before sends with `send_on`."""
        return self._receive(count, self._groups.rank - self._distance)

    def at_first(self, found: Sequence[Tensor] | None, count: int) -> Sequence[Tensor] | None:
        """What the ranks of the last stage have found, there and on the first rank; None on all others.

        Args:
            found: so many tensors; None on the other stages.
        """
        if self._groups.layout.pipeline == 1:
            return found
        if self._groups.rank == self._speaker:
            assert found is not None
            self._send(found, 0)
        return self._receive(count, self._speaker) if self._groups.rank == 0 else found

    def _send(self, tensors: Sequence[Tensor], rank: int) -> None:
        said = torch.zeros(len(tensors), 2 + _DIMENSIONS, dtype=torch.int64)
        for row, tensor in zip(said, tensors, strict=True):
            row[0], row[1] = _TYPES.index(tensor.dtype), tensor.dim()
            row[2 : 2 + tensor.dim()] = torch.tensor(tensor.shape)
        dist.send(said, rank, group=self._groups.control_group)
        for tensor in tensors:
            dist.send(tensor.contiguous(), rank)

    def _receive(self, count: int, rank: int) -> list[Tensor]:
        said = torch.zeros(count, 2 + _DIMENSIONS, dtype=torch.int64)
        dist.recv(said, rank, group=self._groups.control_group)
        tensors = []
        for kind, dimensions, *sizes in said.tolist():
            tensor = torch.empty(sizes[:dimensions], dtype=_TYPES[kind], device=self._groups.device)
            dist.recv(tensor, rank)
            tensors.append(tensor)
        return tensors
