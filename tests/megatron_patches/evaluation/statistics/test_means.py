"""t on the differences of pairs, and z of two standard errors."""

import math

import numpy as np
import pytest
from scipy import stats

from megatron_patches.evaluation.statistics.means import compare_numbers, compare_unpaired
from tests.statistics_experiment import numbers


def test_it_is_scipys_paired_t() -> None:
    random = np.random.default_rng(0)
    first = random.normal(size=40)
    second = first + random.normal(0.1, 0.3, 40)
    expected = stats.ttest_rel(second, first)
    interval = expected.confidence_interval(0.99)
    found = compare_numbers(first, second, alpha=0.01)
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high))
    assert found.degrees == 39


def test_the_bootstrap_has_about_the_same_interval() -> None:
    random = np.random.default_rng(1)
    differences = random.gamma(2, size=200) - 1.9
    found = compare_numbers(np.zeros(200), differences, alpha=0.05)
    other = stats.bootstrap((differences,), np.mean, random_state=2, n_resamples=4000).confidence_interval
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.04)


def test_differences_that_are_all_equal() -> None:
    assert compare_numbers([1, 2], [1, 2], 0.05).p == 1
    two = compare_numbers([1, 2], [2, 3], 0.05)  # t would be sure of them
    assert (two.p, two.low, two.high) == (0.25, 0, 1)
    first = np.random.default_rng(2).normal(size=12)
    rounded = compare_numbers(first, first + 0.1, 0.05)  # alike but for rounding
    assert (rounded.p, rounded.standard_error) == (0.5**12, 0)
    assert rounded.low == rounded.high == pytest.approx(0.1)


def test_unpaired_by_hand() -> None:
    found = compare_unpaired(0.3, 0.03, 0.4, 0.04, alpha=0.05)
    assert found.standard_error == pytest.approx(0.05)
    assert found.p == pytest.approx(0.0455003, abs=1e-7)  # two standard errors
    assert (found.low, found.high) == pytest.approx((0.1 - 0.05 * 1.959964, 0.1 + 0.05 * 1.959964))
    assert found.degrees == math.inf


def test_they_keep_their_level() -> None:
    for line in numbers(20_000):
        assert all(0.04 <= share <= 0.06 for share in line.shares.values()), line
