from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.plans.cutting import cut
from data_tools.plans.extents import Stretches
from data_tools.plans.packing import pack


def one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """Tokens of each pack, by the definition of best-fit decreasing."""
    packs: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [number for number, size in enumerate(packs) if size + length <= capacity]
        if fitting:
            packs[max(fitting, key=lambda number: packs[number])] += length
        else:
            packs.append(length)
    return packs


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([8], [0]),
        ([5, 3, 2, 6, 8], [0, 0, 1, 1, 2]),
        ([1] * 17, [0] * 8 + [1] * 8 + [2]),
        ([3, 3, 3, 3, 2], [0, 0, 1, 1, 0]),
    ],
)
def test_by_hand(lengths: list[int], expected: list[int]) -> None:
    assert pack(np.array(lengths, dtype=np.int64), 8).tolist() == expected


texts = st.integers(1, 30).flatmap(lambda most: st.tuples(st.just(most), st.lists(st.integers(1, most), max_size=60)))


@given(given_texts=texts)
def test_packs_are_those_of_best_fit_decreasing(given_texts: tuple[int, list[int]]) -> None:
    capacity, lengths = given_texts
    found = pack(np.array(lengths, dtype=np.int64), capacity)
    assert len(found) == len(lengths), "every text is in one pack"
    sizes: Counter[int] = Counter()
    for number, length in zip(found.tolist(), lengths, strict=True):
        sizes[number] += length
    assert sorted(sizes) == list(range(len(sizes)))
    assert list(sizes) == sorted(sizes), "numbered in the order of their first texts"
    assert sorted(sizes.values()) == sorted(one_by_one(lengths, capacity))


@pytest.mark.parametrize("capacity", [513, 4097])
def test_lengths_as_those_of_web_pages_fill_packs(capacity: int) -> None:
    """Log-normal lengths with a median of 245 tokens and a mean of 500, what is longer cut off."""
    lengths = np.random.default_rng(3).lognormal(5.5, 1.2, 20000).astype(np.int64).clip(1, capacity)
    packs = pack(lengths, capacity)
    sizes = np.bincount(packs, weights=lengths)
    assert sizes.max() <= capacity
    assert sizes.sum() == lengths.sum()
    assert lengths.sum() / (len(sizes) * capacity) >= 0.95


@pytest.mark.parametrize("median", [150, 400, 2000])
@pytest.mark.parametrize(("documents", "most"), [(1000, 0.01), (10_000, 0.002)])
def test_packs_of_text_as_it_is_found_are_nearly_full(median: int, documents: int, most: float) -> None:
    """Documents of log-normal lengths, as those of web pages are, in samples of 512, each with two places more."""
    drawn = np.random.default_rng(median).lognormal(np.log(median), 1.0, documents)
    whole = Stretches(np.zeros(documents, dtype=np.int64), np.maximum(drawn, 5).astype(np.int64))
    lengths = cut(whole, 510, 510, balance_last=False).lengths + 2
    samples = int(pack(lengths, 512).max()) + 1
    assert 0 <= 1 - lengths.sum() / (samples * 512) < most
