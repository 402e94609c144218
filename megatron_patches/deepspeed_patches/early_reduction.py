"""Sums of gradients that travel while the backward pass goes on; a part of the patch in flat_gradients.py.

DeepSpeed's own way (`overlap_comm`) overlaps the copies that flat_gradients.py does away with.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

BUCKET_ELEMENTS = 25_000_000  # 100 MB: long enough for a network, and there are several of a model worth overlapping


@dataclass
class _Bucket:
    """A stretch of a flat tensor, which whole parameters fill."""

    tensor: Tensor
    ranks: dist.ProcessGroup
    parameters: frozenset[int]
    """ids of those that are in it"""
    missing: set[int]
    """of them, those whose gradient is not complete yet"""
    work: Any = None
    """the message that is on its way"""


class EarlyReduction:
    """All-reduces buckets within the backward pass, in the same order on all ranks: from the last parameters, whose
    gradients come first, to the first ones.

    Args:
        zero: DeepSpeed's optimizer.
        flat: the gradients of each of its groups.
        views: of each group the parameters, and where in `flat` their gradients lie.
    """

    def __init__(self, zero: Any, flat: list[Tensor], views: list[list[tuple[nn.Parameter, Tensor]]]) -> None:
        self._zero = zero
        self._buckets = [
            bucket
            for tensor, held, ranks in zip(flat, views, zero.real_dp_process_group, strict=True)
            for bucket in _cut(tensor, held, ranks)
        ]
        self._bucket_of = {parameter: bucket for bucket in self._buckets for parameter in bucket.parameters}
        self._started = 0

    def count(self, parameter: nn.Parameter, group: int) -> None:
        """A parameter's gradient of a micro-batch was added; DeepSpeed's hook calls this.

        Raises:
            RuntimeError: it was not complete before, and is on its way already.
        """
        if not self._zero.is_gradient_accumulation_boundary():
            return
        bucket = self._bucket_of[id(parameter)]
        if bucket.work is not None:
            raise RuntimeError(
                "a gradient came after its bucket was on its way: a parameter is used by two backward passes of one "
                "micro-batch; set parallel.overlap_reduction to false"
            )
        bucket.missing.discard(id(parameter))
        while self._started < len(self._buckets) and not self._buckets[self._started].missing:
            self._start_next()

    def finish(self) -> None:
        """Send what parameters without a gradient have held up, and wait for everything."""
        while self._started < len(self._buckets):
            self._start_next()
        for bucket in self._buckets:
            bucket.work.wait()
            bucket.work, bucket.missing = None, set(bucket.parameters)
        self._started = 0

    def _start_next(self) -> None:
        bucket = self._buckets[self._started]
        bucket.work = dist.all_reduce(bucket.tensor, group=bucket.ranks, async_op=True)
        self._started += 1


def _cut(flat: Tensor, views: list[tuple[nn.Parameter, Tensor]], ranks: dist.ProcessGroup) -> Iterator[_Bucket]:
    """Stretches of at least BUCKET_ELEMENTS, the last parameters' first; what is left goes with the first ones."""
    starts = sorted(((int(view.storage_offset()), id(parameter)) for parameter, view in views), reverse=True)
    end, held = flat.numel(), set()
    for start, parameter in starts:
        held.add(parameter)
        if end - start >= BUCKET_ELEMENTS or start == 0:
            yield _Bucket(flat.narrow(0, start, end - start), ranks, frozenset(held), set(held))
            end, held = start, set()
