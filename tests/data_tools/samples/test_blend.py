"""Blends: whole weights, and an order in which no source is ever a whole sample off its weight."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.samples.blend import LARGEST_NUMBER, PERIOD, BlendPattern, apportion, whole_weights
from megatron_patches.errors import TrainyardError

WEIGHTS = st.floats(1e-6, 1e6, allow_nan=False)
ANY_WEIGHTS = st.lists(
    st.one_of(WEIGHTS, st.floats(5e-324, 1e308, allow_nan=False), st.integers(1, 10)), min_size=1, max_size=40
)
SKEWED = [[1, 65_535], [65_535, 1], [1, 1, 65_534], [1e-9] * 299 + [1.0], [1.0] * 150 + [1e5] * 150]


def farthest(pattern: BlendPattern) -> Fraction:
    """Largest distance of a source from its weight at any place of a period, in samples.

    Between two samples of a source its distance is linear in the place, so it is largest at one of them or just before.
    """
    places = np.arange(1, PERIOD + 1)
    sources, ordinals = pattern.locate(places - 1)
    due = places * pattern.weights[sources]
    ahead = (ordinals + 1) * PERIOD - due
    behind = due - pattern.weights[sources] - ordinals * PERIOD
    return Fraction(int(max(ahead.max(), behind.max())), PERIOD)


@pytest.mark.parametrize(
    ("weights", "sources", "numbers"),
    [
        ([0.5, 0.3, 0.2], [0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 0, 1], [0, 0, 1, 0, 2, 1, 3, 1, 4, 2, 5, 3]),
        ([1, 1], [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
    ],
)
def test_golden_values(weights: list[float], sources: list[int], numbers: list[int]) -> None:
    """The order of every blend ever read: a change here makes resumed runs read other samples."""
    found = BlendPattern(whole_weights(weights)).locate(np.arange(12))
    assert [each.tolist() for each in found] == [sources, numbers]


def test_golden_value_of_a_large_blend() -> None:
    sources, numbers = BlendPattern(whole_weights(range(1, 301))).locate(np.arange(PERIOD))
    digest = hashlib.sha256(sources.astype("<u2").tobytes() + numbers.astype("<u2").tobytes()).hexdigest()
    assert digest == "1c29a74f132f18a6d380c93117e0f649b28f294d14cbb22fe3f3d43a30d1394b"


@pytest.mark.parametrize("weights", [*SKEWED, [0.5, 0.3, 0.2], list(range(1, 301)), [1.0] * 256, [1.0] * 257])
def test_no_source_is_a_sample_off_at_any_place(weights: list[float]) -> None:
    pattern = BlendPattern(whole_weights(weights))
    assert farthest(pattern) <= 1 - Fraction(1, 2 * len(weights) - 2)
    assert np.array_equal(np.bincount(pattern.locate(np.arange(PERIOD))[0]), pattern.weights)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), sources=st.integers(2, 300), spread=st.floats(0, 6))
def test_no_source_is_a_sample_off_whatever_the_weights(seed: int, sources: int, spread: float) -> None:
    weights = np.random.default_rng(seed).lognormal(0, spread, sources).tolist()
    assert farthest(BlendPattern(whole_weights(weights))) <= 1 - Fraction(1, 2 * sources - 2)


def test_distance_counted_place_by_place() -> None:
    """`farthest` itself, against every place."""
    pattern = BlendPattern(whole_weights([5, 3, 2, 1e-3]))
    given_so_far = np.cumsum(np.eye(4, dtype=np.int64)[pattern.locate(np.arange(PERIOD))[0]], axis=0)
    distance = np.abs(given_so_far * PERIOD - np.arange(1, PERIOD + 1)[:, None] * pattern.weights).max()
    assert farthest(pattern) == Fraction(int(distance), PERIOD)


@settings(max_examples=6, deadline=None)
@given(weights=st.lists(WEIGHTS, min_size=1, max_size=12), first=st.integers(0, 3 * PERIOD))
def test_samples_of_each_source_come_once_and_in_order(weights: list[float], first: int) -> None:
    """Over a stretch that crosses periods; `counts` says where each source stands at its beginning and at its end."""
    pattern = BlendPattern(whole_weights(weights))
    numbers = np.arange(first, first + PERIOD + 1000)
    sources, within = pattern.locate(numbers)
    before, after = pattern.counts(first), pattern.counts(first + len(numbers))
    assert np.array_equal(after - before, np.bincount(sources, minlength=len(weights)))
    for source in range(len(weights)):
        assert np.array_equal(within[sources == source], np.arange(before[source], after[source]))


def test_far_on_counts_stay_within_a_sample() -> None:
    pattern = BlendPattern(whole_weights([0.6, 0.25, 0.1, 0.05, 1e-5]))
    for number in np.random.default_rng(1).integers(10**7, LARGEST_NUMBER, 200).tolist():
        counts = pattern.counts(number).tolist()
        assert sum(counts) == number
        for count, weight in zip(counts, pattern.weights.tolist(), strict=True):
            assert abs(count - Fraction(number * weight, PERIOD)) < 1


def test_ten_million_samples() -> None:
    pattern = BlendPattern(whole_weights([7, 2, 1]))
    sources, _ = pattern.locate(np.arange(10_000_000))
    assert np.array_equal(np.bincount(sources), pattern.counts(10_000_000))


@settings(max_examples=8, deadline=None)
@given(
    weights=st.lists(WEIGHTS, min_size=1, max_size=8), counts=st.lists(st.integers(0, 10**9), min_size=4, max_size=4)
)
def test_first_with_is_the_inverse_of_counts(weights: list[float], counts: list[int]) -> None:
    pattern = BlendPattern(whole_weights(weights))
    for source in range(len(weights)):
        for count in counts:
            number = pattern.first_with(source, count)
            assert pattern.counts(number)[source] == count
            assert number == 0 or pattern.counts(number - 1)[source] == count - 1
            assert (number == 0) == (count == 0)


def test_a_single_source_is_read_as_it_is() -> None:
    pattern = BlendPattern((PERIOD,))
    numbers = np.array([[0, 5], [PERIOD, LARGEST_NUMBER]])
    sources, within = pattern.locate(numbers)
    assert not sources.any() and np.array_equal(within, numbers)
    assert pattern.counts(PERIOD + 3).tolist() == [PERIOD + 3]
    assert (pattern.first_with(0, 0), pattern.first_with(0, PERIOD + 3)) == (0, PERIOD + 3)


def test_as_many_sources_as_places() -> None:
    pattern = BlendPattern(whole_weights([1.0] * PERIOD))
    sources, within = pattern.locate(np.arange(2 * PERIOD))
    assert np.array_equal(np.sort(sources[:PERIOD]), np.arange(PERIOD))
    assert np.array_equal(within, np.repeat([0, 1], PERIOD))


def test_shapes_and_ends() -> None:
    pattern = BlendPattern(whole_weights([2, 1]))
    sources, within = pattern.locate(np.array([[LARGEST_NUMBER, 0, 1], [2, 3, 4]]))
    assert sources.shape == within.shape == (2, 3) and sources.dtype == within.dtype == np.int64
    assert within[0, 0] == pattern.counts(LARGEST_NUMBER)[sources[0, 0]]
    assert [each.size for each in pattern.locate(np.array([], dtype=np.int64))] == [0, 0]


@given(weights=ANY_WEIGHTS)
def test_whole_weights_are_the_largest_remainders(weights: list[float]) -> None:
    whole = whole_weights(weights)
    assert sum(whole) == PERIOD and min(whole) >= 1
    assert whole_weights(whole) == whole, "whole weights are their own"
    shares = [Fraction(weight) / sum(map(Fraction, weights)) * PERIOD for weight in weights]
    if min(shares) >= 1:
        up = {number for number, share in enumerate(shares) if whole[number] != math.floor(share)}
        by_remainder = sorted(range(len(shares)), key=lambda number: (-(shares[number] % 1), number))
        assert up <= set(by_remainder[: len(up)]), "those with the largest remainders are rounded up, the first of ties"
        assert all(whole[number] == math.floor(shares[number]) + 1 for number in up)


@pytest.mark.parametrize(
    ("weights", "total", "whole"),
    [
        ([1, 1, 1], 10, (4, 3, 3)),
        ([1, 1, 1], 11, (4, 4, 3)),
        ([1e-300, 3, 1], 9, (1, 6, 2)),
        ([1, 30, 31, 1e-9], 6, (1, 2, 2, 1)),
        ([0.1] * 3, 3, (1, 1, 1)),
        ([5e-324, 1e308], 4, (1, 3)),
    ],
)
def test_apportioned(weights: list[float], total: int, whole: tuple[int, ...]) -> None:
    assert apportion(weights, total) == whole


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ([], "a blend of 0 sources"),
        ([1.0] * (PERIOD + 1), "a blend of 65,537 sources"),
        ([1, 0], "source 2 of 2 has a weight of 0"),
        ([-0.5, 1], "source 1 of 2 has a weight of -0.5"),
        ([1, 1, math.nan], "source 3 of 3 has a weight of nan"),
        ([math.inf], "source 1 of 1 has a weight of inf"),
    ],
)
def test_weights_that_are_none(weights: list[float], told: str) -> None:
    with pytest.raises(TrainyardError, match=told):
        whole_weights(weights)


@pytest.mark.parametrize("weights", [[], [PERIOD - 1], [PERIOD, 0], [PERIOD + 1, -1], [1, 2, 3]])
def test_weights_that_make_no_period(weights: list[int]) -> None:
    with pytest.raises(TrainyardError, match="sum to 65,536"):
        BlendPattern(weights)


def test_numbers_that_are_none() -> None:
    pattern = BlendPattern(whole_weights([2, 1]))
    for number in (-1, LARGEST_NUMBER + 1):
        with pytest.raises(TrainyardError):
            pattern.locate(np.array([0, number]))
        with pytest.raises(TrainyardError):
            pattern.counts(number)
        with pytest.raises(TrainyardError):
            pattern.first_with(0, number)
    for source in (-1, 2):
        with pytest.raises(TrainyardError, match="numbered from 0"):
            pattern.first_with(source, 1)
    with pytest.raises(TrainyardError, match="only after more than"):
        pattern.first_with(1, LARGEST_NUMBER)
