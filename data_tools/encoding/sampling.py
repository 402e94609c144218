"""Which documents of a part are compared: by their numbers alone, so that no cut of blocks changes it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FIRST = 100
"""documents at a part's beginning that are compared"""
FIRST_CHARACTERS = 2048
"""of each of them: 0.2 MB in all, for which the reference takes 0.1 s"""
_DRAWN_BITS = 10
"""of the documents after them, one in 2**10 is compared"""
DRAWN_CHARACTERS = 1 << 20
"""of each of these, 0.3 s of a core"""
_ODD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio: multiples of it fill the range evenly"""


class Sampled(NamedTuple):
    """A document that is compared."""

    place: int
    """in the block"""
    characters: int
    """of its text that are compared: encoded by themselves where there are more"""


def sampled(numbers: Sequence[int]) -> list[Sampled]:
    """Those of a block.

    Args:
        numbers: of its documents in their part, from 1.
    """
    given = np.asarray(numbers, dtype=np.uint64)
    first = given <= FIRST
    drawn = (given * _ODD) >> np.uint64(64 - _DRAWN_BITS) == 0
    return [
        Sampled(index, FIRST_CHARACTERS if first[index] else DRAWN_CHARACTERS)
        for index in np.flatnonzero(first | drawn).tolist()
    ]
