"""Sums over all samples that a run's order has before a count of them."""

import numpy as np
from numpy.typing import NDArray

from tools.run_views.read_order import ReadOrder

SAMPLES_AT_ONCE = 1 << 15
"""whose hashes are computed together"""
_MODULUS = 1 << 64


class RunningHashes:
    """What is known of one order serves others, as far as they agree."""

    def __init__(self) -> None:
        self._known: list[tuple[ReadOrder, NDArray[np.int64], NDArray[np.uint64]]] = []
        """counts, ascending, and the sum before each"""

    def add(
        self, order: ReadOrder, firsts: NDArray[np.int64], sizes: NDArray[np.int64], sums: NDArray[np.uint64]
    ) -> None:
        """Take the steps of a launch, as far as they follow each other, if what comes before them is known."""
        if not len(firsts):
            return
        count, before = self._nearest(order, int(firsts[0]))
        if count != firsts[0]:
            return
        ends = firsts + sizes
        [gaps] = np.nonzero(firsts[1:] != ends[:-1])
        whole = int(gaps[0]) + 1 if len(gaps) else len(firsts)
        running = np.cumsum(sums[:whole], dtype=np.uint64) + np.array([before], dtype=np.uint64)
        self._known.append((order, ends[:whole], running))

    def at(self, order: ReadOrder, samples: int) -> int:
        """The sum over the first samples of an order; what is not known of them is read."""
        count, running = self._nearest(order, samples)
        counts = [min(SAMPLES_AT_ONCE, samples - first) for first in range(count, samples, SAMPLES_AT_ONCE)]
        for number, size in enumerate(counts):
            running += int(order.sums([count + number * SAMPLES_AT_ONCE], [size])[0])
        return running % _MODULUS

    def _nearest(self, order: ReadOrder, samples: int) -> tuple[int, int]:
        """The highest count up to this one of which the sum is known, and the sum."""
        best = (0, 0)
        for other, counts, sums in self._known:
            row = int(np.searchsorted(counts, samples, "right")) - 1
            if row >= 0 and counts[row] > best[0] and order.agrees(other, int(counts[row])):
                best = (int(counts[row]), int(sums[row]))
        return best
