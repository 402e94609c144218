"""Which of a source's samples is read when: a pure function of (seed, epoch, index), the same on every layout."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from data_tools.samples.permutation import permute
from megatron_patches.errors import TrainyardError

ONLY_SOURCE = "data"
"""name of the source that `data.path` stands for; its order is that of runs from before sources had names"""


class TrainingOrder:
    """The order of one source.

    Args:
        source_length: its samples.
        name: other names give independent orders, also to sources of one length.
    """

    def __init__(self, source_length: int, seed: int, name: str = ONLY_SOURCE) -> None:
        if source_length < 1:
            raise TrainyardError("there are no samples to order; the training split is shorter than one sample")
        self._length = source_length
        named = () if name == ONLY_SOURCE else (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"),)
        self._seed, self._named = seed, named

    def numbers(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers in the source.

        Args:
            indices: places in the order of its samples, [n]; place i belongs to epoch i // length, and every epoch has
                every sample of the source once, in an order of its own.

        Returns:
            int64 [n].
        """
        epochs, positions = np.divmod(np.asarray(indices, dtype=np.int64), self._length)
        order = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            order[here] = permute(positions[here], self._length, key=(self._seed, epoch, *self._named))
        return order
