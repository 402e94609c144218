"""Ids that no text may have become, looked for in all ids of a block at once."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray


class HiddenIds:
    """What may not occur: some ids, and all beyond the vocabulary."""

    def __init__(self, hidden: Collection[int], vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._is_hidden = np.zeros(vocab_size, np.bool_)
        self._is_hidden[list(hidden)] = True
        self._lowest = np.uint32(min(hidden, default=0))
        self._span = np.uint32(max(hidden) - min(hidden)) if hidden else None
        self.ordinary = int(np.argmin(self._is_hidden))
        """an id that may occur"""

    def first(self, ids: NDArray[np.uint32]) -> int | None:
        """Where in the ids the first of them is; None if there is none."""
        if not ids.size:
            return None
        if (highest := ids.max()) >= self._vocab_size:
            return int(np.argmax(ids >= self._vocab_size))
        if self._span is None or highest < self._lowest:  # as of GPT-2 and Llama 3, whose hidden ids come last
            return None
        # Below the range of hidden ids the difference is a large number.
        near = np.flatnonzero(ids - self._lowest <= self._span)
        found = near[self._is_hidden[ids[near]]]
        return int(found[0]) if found.size else None
