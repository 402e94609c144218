"""Samples that are left out: whatever the ranges, what is read are all other places in order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.samples.batch_sampler import BatchSampler
from data_tools.samples.skipping import SkippedSamples, first_difference, ranges_of, shown, united, without
from megatron_patches.errors import TrainyardError

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda each: (each[0], sum(each))), max_size=6)
END = 200


def held(ranges: list[tuple[int, int]]) -> set[int]:
    return {place for first, end in ranges for place in range(first, end)}


@given(ranges=RANGES)
def test_what_is_read_are_all_other_places_in_order(ranges: list[tuple[int, int]]) -> None:
    skipped, others = SkippedSamples(ranges), [place for place in range(END) if place not in held(ranges)]
    count = len(others)
    assert skipped.places(np.arange(count)).tolist() == others
    assert skipped.count == len(held(ranges))
    for trained in range(1, count):
        assert skipped.reached(trained) == others[trained - 1] + 1
        assert skipped.passed(trained) == others[trained - 1] + 1 - trained
    assert skipped.reached(0) == 0


@given(ranges=RANGES, others=RANGES)
def test_ranges_as_sets(ranges: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    assert held(list(united(ranges))) == held(ranges)
    assert all(end < first for (_, end), (first, _) in zip(united(ranges), united(ranges)[1:], strict=False))
    assert held(list(without(ranges, others))) == held(ranges) - held(others)
    assert first_difference(ranges, others) == min(held(ranges) ^ held(others), default=None)


@given(ranges=RANGES, more=RANGES, trained=st.integers(1, 60))
def test_a_change_ahead_changes_nothing_that_was_read(
    ranges: list[tuple[int, int]], more: list[tuple[int, int]], trained: int
) -> None:
    """The rule by which a resume takes a change, or refuses it."""
    before, now = SkippedSamples(ranges), SkippedSamples(more)
    changed = first_difference(ranges, more)
    is_ahead = changed is None or changed >= before.reached(trained)
    read = np.arange(trained)
    assert (before.places(read).tolist() == now.places(read).tolist()) == is_ahead


def test_batches_are_whole_where_samples_are_left_out() -> None:
    skipped = SkippedSamples([(3, 6), (9, 10)])
    read = [BatchSampler(lambda _: 8, 2, rank, 2, skipped).micro_batches(0) for rank in range(2)]
    assert [[batch.tolist() for batch in batches] for batches in read] == [[[0, 1], [7, 8]], [[2, 6], [10, 11]]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("80:160", "80:160 is no list of ranges"),
        ([80, 160], "80 is no range of samples"),
        ([[80]], "is no range"),
        ([[160, 80]], "is no range"),
        ([[80, 80]], "is no range"),
        ([[-1, 80]], "is no range"),
        ([[0, 1 << 60]], "is no range"),
        ([[True, 80]], "is no range"),
        ([[0, 10], [5, 20]], r"\[5, 20\] begins before 10, where the range before it ends; put them in order"),
    ],
)
def test_what_is_no_ranges(value: object, message: str) -> None:
    with pytest.raises(TrainyardError, match=message):
        ranges_of(value)


def test_ranges_for_people() -> None:
    assert shown(ranges_of([[80, 160], [160, 170]])) == "80:160, 160:170"
