"""The control tokens that a sample has around each of its texts (`data.samples.wrapped`)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.plans.samples_config import PLACES_AROUND


class Wrapping(NamedTuple):
    """Ids of a tokenizer's control tokens."""

    cls: int
    """what each text begins with"""
    sep: int
    """what each text ends with"""
    pad: int
    """what fills a sample up"""


def own_places(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the own tokens of wrapped texts lie, the texts end to end: int64 [sum of lengths].

    Args:
        lengths: own tokens of each text, [n].
    """
    before = np.arange(len(lengths)) * PLACES_AROUND + 1
    return np.arange(int(lengths.sum())) + np.repeat(before, lengths)
