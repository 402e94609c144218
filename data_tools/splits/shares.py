"""`range: 0.5:0.95` and `split: 949,50,1`: shares of a source's documents as selections of each of its datasets.

One rule: the documents of a source are put into an order, `range` takes a stretch of them, `split` cuts what is left
into training, validation and test. `file_order` is the order of the files, one dataset after the other;
`document_hash` that of the documents' hashes, so that identical documents lie on one side of every boundary.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.selection import DocumentRange, Selection
from data_tools.datasets.split import SPLITS, parse_split, split_documents
from data_tools.splits.hash_range import HASHES, HashRange
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened

Part = Literal["training", "validation", "test"]
SplitBy = Literal["file_order", "document_hash"]
Shares = tuple[float, float]
"""[start, end) of a source's documents, 0 <= start < end <= 1"""


def parse_range(given: object) -> Shares:
    """Reads a stretch of shares: `0.5:0.95`, or `[0.5, 0.95]` as YAML has it; `:0.95`, `0.5:` and `:` leave out an end.

    Raises:
        TrainyardError: not two numbers, one beyond 0 to 1, or nothing between them.
    """
    remedy = "Give the first share and the one behind the last, from 0 to 1, such as 0.5:0.95"
    shares = _two_numbers(given)
    if shares is None:
        raise TrainyardError(f"range '{shortened(given)}' is not two shares. {remedy}")
    start, end = shares
    if not all(0 <= share <= 1 for share in shares):
        raise TrainyardError(f"range '{shortened(given)}' has a share beyond 0 to 1. {remedy}")
    if start >= end:
        raise TrainyardError(f"range '{shortened(given)}' has nothing between its shares. {remedy}")
    return start, end


def _two_numbers(given: object) -> Shares | None:
    if isinstance(given, str):
        first, colon, last = (each.strip() for each in given.partition(":"))
        words: Sequence[Any] = (first or "0", last or "1") if colon else ()
    else:
        words = given if isinstance(given, list | tuple) else ()
    if len(words) != 2 or any(isinstance(word, bool) or not isinstance(word, str | int | float) for word in words):
        return None
    try:
        start, end = map(float, words)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(start) or math.isnan(end) else (start, end)


def select(
    part: Part,
    split: str,
    range_: Shares,
    by: SplitBy,
    documents: Sequence[int],
    hashes: Callable[[int], NDArray[np.uint64]] | None = None,
) -> list[Selection]:
    """The documents of one part of a source, as a selection of each of its datasets.

    Args:
        split: shares of training, validation and test, as `parse_split` reads them.
        range_: shares that `split` cuts, as `parse_range` gives them.
        documents: of each dataset, empty documents included.
        hashes: gives those of the dataset of a number, uint64 [documents]; for `document_hash` alone.

    Raises:
        TrainyardError: a split that cannot be read.
    """
    if by == "file_order":
        return list(in_file_order(part, split, range_, documents))
    assert hashes is not None, "document_hash needs hashes"
    low, high = hash_bounds(part, split, range_)
    return [HashRange(low, high, hashes(number)) for number in range(len(documents))]


def in_file_order(part: Part, split: str, range_: Shares, documents: Sequence[int]) -> list[DocumentRange]:
    """The documents of one part in each dataset, by their place in all datasets together; a range may be empty.

    The boundaries of `range_` are rounded shares of all documents, those of `split` are `split_documents` of what lies
    between them: over the whole range of one dataset, Megatron's.
    """
    starts = list(accumulate(documents, initial=0))
    begin, end = (round(share * float(starts[-1])) for share in range_)
    first, last = split_documents(split, end - begin)[SPLITS.index(part)]
    inside = [(max(begin + first, start), min(begin + last, stop)) for start, stop in pairwise(starts)]
    return [
        DocumentRange(low - start, high - start) if low < high else DocumentRange(0, 0)
        for (low, high), start in zip(inside, starts, strict=False)
    ]


def hash_bounds(part: Part, split: str, range_: Shares) -> tuple[int, int]:
    """[low, high) of the hashes of one part, integers from 0 to 2**64.

    In exact fractions, rounded down: what ends at a share and what begins there have one boundary.
    """
    begin, end = (int(Fraction(share) * HASHES) for share in range_)
    shares = [Fraction(share) for share in parse_split(split)]
    boundaries = [begin + int((end - begin) * upto / sum(shares)) for upto in accumulate(shares, initial=Fraction(0))]
    number = SPLITS.index(part)
    return boundaries[number], boundaries[number + 1]
