"""Which of a source's samples is read when: a pure function of (seed, epoch, index), the same on every layout."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_tools.samples.permutation import Permutation, permute_each
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
        self.length = source_length
        named = () if name == ONLY_SOURCE else (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"),)
        self._seed, self._named = seed, named
        self._epochs: dict[int, Permutation] = {}

    def numbers(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers in the source.

        Args:
            indices: places in the order of its samples, [n]; place i belongs to epoch i // length, and every epoch has
                every sample of the source once, in an order of its own.

        Returns:
            int64 [n].
        """
        return numbers_of_each([self], np.zeros(len(indices), dtype=np.int64), np.asarray(indices, dtype=np.int64))

    def epoch(self, number: int) -> Permutation:
        """The order of one epoch."""
        if number not in self._epochs:
            self._epochs[number] = Permutation(self.length, (self._seed, number, *self._named))
        return self._epochs[number]


def numbers_of_each(
    orders: Sequence[TrainingOrder], which: NDArray[np.int64], indices: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Numbers in the sources of several orders at once: `which` order, int64 [n], and the places in it, int64 [n]."""
    lengths = np.array([order.length for order in orders], dtype=np.int64)[which]
    epochs, positions = np.divmod(indices, lengths)
    pairs, of_pair = np.unique(np.stack([which, epochs]), axis=1, return_inverse=True)
    permutations = [orders[order].epoch(epoch) for order, epoch in pairs.T.tolist()]
    return permute_each(positions, permutations, of_pair.reshape(-1))
