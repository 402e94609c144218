"""Documents chosen by their hashes: identical ones are always chosen together, wherever and however often they lie."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.checksums import VERSION

HASHES = 1 << 64
"""how many there are"""
READ_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class HashRange:
    """A `Selection`: the documents whose hash lies in [low, high), 0 <= low <= high <= 2**64."""

    low: int
    high: int
    hashes: NDArray[np.uint64] = field(compare=False, repr=False)
    """Of all documents of the dataset, uint64 [documents]."""

    @property
    def name(self) -> str:
        """See `Selection`; the version is that of the hash's formula."""
        return f"documents of hash (version {VERSION}) {self.low:#x}:{self.high:#x}"

    def blocks(self, size: int) -> Iterator[NDArray[np.int64]]:
        """See `Selection`; at most 2**20 at a time, whatever the size."""
        if self.low >= self.high:
            return
        low, last = np.uint64(self.low), np.uint64(self.high - 1)  # 2**64 itself is no uint64
        step = min(size, READ_AT_ONCE)
        for first in range(0, len(self.hashes), step):
            hashes = self.hashes[first : first + step]
            chosen = np.flatnonzero((hashes >= low) & (hashes <= last))
            if len(chosen):
                yield chosen.astype(np.int64, copy=False) + first
