"""Which samples a rank reads in a step, from the number of samples consumed so far and nothing else."""

import numpy as np
from numpy.typing import NDArray

from data_tools.errors import TrainyardError


class BatchSampler:
    """Cuts the global batch [consumed, consumed + global_batch_size) into micro-batches for each data-parallel rank.

    Micro-batch m of rank r is the r-th part of the m-th slice, so the ranks together read the samples in order.

    Raises:
        TrainyardError: the global batch is not a multiple of micro-batch times ranks.
    """

    def __init__(
        self, global_batch_size: int, micro_batch_size: int, data_parallel_rank: int, data_parallel_size: int
    ) -> None:
        assert 0 <= data_parallel_rank < data_parallel_size and micro_batch_size > 0
        together = micro_batch_size * data_parallel_size
        if global_batch_size < 1 or global_batch_size % together:
            below = global_batch_size // together * together
            nearest = " or ".join(str(value) for value in (below, below + together) if value > 0)
            raise TrainyardError(
                f"global batch {global_batch_size} is not a multiple of micro-batch {micro_batch_size} x "
                f"{data_parallel_size} data-parallel ranks = {together}; set training.global_batch_size to {nearest}, "
                "or change training.micro_batch_size"
            )
        self.global_batch_size = global_batch_size
        self._offsets: NDArray[np.int64] = (
            np.arange(global_batch_size).reshape(-1, data_parallel_size, micro_batch_size)[:, data_parallel_rank]
        ).astype(np.int64)

    def micro_batches(self, consumed_samples: int) -> list[NDArray[np.int64]]:
        """Sample numbers this rank reads in the next step: int64 [micro_batch_size] for each micro-batch."""
        return list(self._offsets + consumed_samples)
