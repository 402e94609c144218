"""Documents that two selections of one dataset have in common, by their place: no token is read for it."""

from typing import NamedTuple

import numpy as np

from data_tools.datasets.selection import DocumentRange, Selection
from data_tools.splits.hash_range import HashRange


class Shared(NamedTuple):
    """Documents in both."""

    documents: int
    """how many there are"""
    first: int
    """number of the first of them"""


def shared_documents(one: Selection, other: Selection) -> Shared | None:
    """What both select of one dataset, empty documents included; None where that is nothing.

    The selections of a run are of one kind, as `data.split_by` says; of two kinds nothing is known.
    """
    if isinstance(one, DocumentRange) and isinstance(other, DocumentRange):
        first, end = max(one.first, other.first), min(one.end, other.end)
        return Shared(end - first, first) if first < end else None
    if isinstance(one, HashRange) and isinstance(other, HashRange):
        both = HashRange(max(one.low, other.low), min(one.high, other.high), one.hashes)
        blocks = [block for block in both.blocks(len(one.hashes) or 1) if len(block)]
        return Shared(int(np.sum([len(block) for block in blocks])), int(blocks[0][0])) if blocks else None
    return None
