"""Which samples a rank reads in a step, from the number of samples consumed so far and nothing else."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from data_tools.samples.skipping import SkippedSamples


class BatchSampler:
    """Cuts the global batch [consumed, consumed + size) into micro-batches for each data-parallel rank.

    Micro-batch m of rank r is the r-th part of the m-th slice, so the ranks together read the samples in order.
    Batches are whole also where samples are left out: those behind them move up.

    Args:
        batch_size_at: size of the global batch that begins at a count of consumed samples; it may grow.
        skipped: what is left out of the run's order of samples.
    """

    def __init__(
        self,
        batch_size_at: Callable[[int], int],
        micro_batch_size: int,
        data_parallel_rank: int,
        data_parallel_size: int,
        skipped: SkippedSamples | None = None,
    ) -> None:
        assert 0 <= data_parallel_rank < data_parallel_size and micro_batch_size > 0
        self.batch_size_at = batch_size_at
        self._shape = (-1, data_parallel_size, micro_batch_size)
        self._rank = data_parallel_rank
        self._skipped = skipped or SkippedSamples()

    def places(self, consumed_samples: int) -> NDArray[np.int64]:
        """Places in the run's order of samples that all ranks read in the next step: int64 [global batch]."""
        size = self.batch_size_at(consumed_samples)
        return self._skipped.places(np.arange(size, dtype=np.int64) + consumed_samples)

    def micro_batches(self, consumed_samples: int) -> list[NDArray[np.int64]]:
        """Those of them that this rank reads: int64 [micro_batch_size] for each micro-batch."""
        places = self.places(consumed_samples)
        micro_batch, data_parallel = self._shape[2], self._shape[1]
        assert len(places) % (micro_batch * data_parallel) == 0, "layouts that do not divide are refused by plan_layout"
        return list(places.reshape(self._shape)[:, self._rank])
