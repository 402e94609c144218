from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.plans.cutting import cut
from data_tools.plans.extents import Stretches


def pieces(lengths: list[int], window: int, stride: int, balance_last: bool = True) -> list[list[tuple[int, int]]]:
    """(offset, length) of each window of each document; the documents lie end to end, three tokens apart."""
    sizes = np.array(lengths, dtype=np.int64)
    starts = np.cumsum(sizes + 3) - sizes
    found = cut(Stretches(starts, sizes), window, stride, balance_last)
    document = np.searchsorted(starts, found.starts, "right") - 1
    document = np.maximum.accumulate(document) if len(document) else document
    windows = zip((found.starts - starts[document]).tolist(), found.lengths.tolist(), document.tolist(), strict=True)
    by_document: list[list[tuple[int, int]]] = [[] for _ in lengths]
    for offset, length, number in windows:
        by_document[number].append((offset, length))
    return by_document


@pytest.mark.parametrize(
    ("stride", "balance_last", "expected"),
    [
        (8, True, [[(0, 5)], [(0, 6), (6, 6)], [(0, 8), (8, 8), (16, 7), (23, 7)]]),
        (8, False, [[(0, 5)], [(0, 8), (8, 4)], [(0, 8), (8, 8), (16, 8), (24, 6)]]),
        (6, True, [[(0, 5)], [(0, 7), (5, 7)], [(0, 8), (6, 8), (12, 8), (18, 7), (23, 7)]]),
        (7, True, [[(0, 5)], [(0, 7), (6, 6)], [(0, 8), (7, 8), (14, 8), (21, 5), (25, 5)]]),  # r is 2: (2 + 8) / 2
    ],
)  # fmt: skip
def test_by_hand(stride: int, balance_last: bool, expected: list[list[tuple[int, int]]]) -> None:
    assert pieces([5, 12, 30], 8, stride, balance_last) == expected


cuts = st.integers(1, 40).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window)))


@given(cut_so=cuts, lengths=st.lists(st.integers(0, 200), max_size=8), balance_last=st.booleans())
def test_windows_are_as_they_are_defined(cut_so: tuple[int, int], lengths: list[int], balance_last: bool) -> None:
    window, stride = cut_so
    overlap = window - stride
    for length, windows in zip(lengths, pieces(lengths, window, stride, balance_last), strict=True):
        number = 0 if length == 0 else 1 if length <= window else 1 + -(-(length - window) // stride)
        assert len(windows) == number
        times = np.zeros(length, dtype=int)
        for offset, size in windows:
            assert 0 < size <= window and 0 <= offset <= length - size
            times[offset : offset + size] += 1
        assert (times > 0).all(), "every token is in a window"
        # a token is in several only where neighbours overlap, by as much as was asked for
        assert all(before + size - after == overlap for (before, size), (after, _) in pairwise(windows))
        assert [offset for offset, _ in windows[:-1]] == [place * stride for place in range(number - 1)]
        if overlap == 0:
            assert (times == 1).all()
        full = windows[:-2] if balance_last else windows[:-1]
        assert all(size == window for _, size in full)
        if balance_last and number > 1:
            assert 0 <= windows[-2][1] - windows[-1][1] <= 1, "ceil first"
            assert windows[-1][1] > overlap


@given(cut_so=cuts, lengths=st.lists(st.integers(0, 100), min_size=1, max_size=8), at=st.integers(0, 8))
def test_documents_do_not_know_of_each_other(cut_so: tuple[int, int], lengths: list[int], at: int) -> None:
    assert pieces(lengths, *cut_so) == pieces(lengths[:at], *cut_so) + pieces(lengths[at:], *cut_so)
