"""Documents that two selections have in common, by their place."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_tools.datasets.selection import DocumentRange, Selection
from data_tools.splits.hash_range import HASHES, HashRange
from data_tools.splits.shared import shared_documents

PLACES = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)
TENTHS = np.arange(9, dtype=np.uint64) * np.uint64(HASHES // 10)


def numbers(selection: Selection) -> set[int]:
    return {number for block in selection.blocks(3) for number in block.tolist()}


@given(PLACES, PLACES, st.booleans())
def test_what_is_shared_is_what_both_list(one: list[int], other: list[int], by_hash: bool) -> None:
    def select(places: list[int]) -> Selection:
        if by_hash:
            return HashRange(places[0] * (HASHES // 10), places[1] * (HASHES // 10), TENTHS)
        return DocumentRange(*places)

    found, both = shared_documents(select(one), select(other)), numbers(select(one)) & numbers(select(other))
    assert (None if found is None else (found.documents, found.first)) == ((len(both), min(both)) if both else None)


def test_of_two_kinds_nothing_is_known() -> None:
    assert shared_documents(DocumentRange(0, 9), HashRange(0, HASHES, TENTHS)) is None
