"""What an evaluation could show, before it is paid for."""

import math

import numpy as np
import pytest
from scipy import stats

from megatron_patches.evaluation.statistics.mcnemar import mid_p
from megatron_patches.evaluation.statistics.power import (
    Demands,
    accuracies_seen,
    difference_seen,
    items_needed,
    items_needed_in_clusters,
    mcnemar_power,
    smallest_difference,
    smallest_difference_in_clusters,
)
from megatron_patches.evaluation.statistics.sign_flips import drawn_signs
from tests.statistics_experiment import SIZES, clustered_sums, p_of_signs, symmetric


@pytest.mark.parametrize(("items", "discordant", "difference"), [(30, 0.3, 0.1), (60, 0.2, 0.2), (40, 1.0, 0.3)])
def test_power_is_the_sum_over_all_tables(items: int, discordant: float, difference: float) -> None:
    expected = 0.0
    for first in range(items + 1):
        for second in range(items + 1 - first):
            chances = [(discordant - difference) / 2, (discordant + difference) / 2, 1 - discordant]
            if float(mid_p(first, second)) <= 0.05:
                expected += stats.multinomial.pmf([first, second, items - first - second], items, chances)
    assert mcnemar_power(items, discordant, difference, 0.05) == pytest.approx(expected, abs=1e-9)


def test_the_smallest_difference_has_the_power() -> None:
    found = smallest_difference(1319, 0.1, Demands())
    assert found is not None
    assert mcnemar_power(1319, 0.1, found, 0.05) == pytest.approx(0.8, abs=1e-6)
    # by the normal approximation of Connor 1987, Biometrics 43:207-211
    approximate = (1.959964 * 0.1**0.5 + 0.841621 * (0.1 - found**2) ** 0.5) / 1319**0.5
    assert found == pytest.approx(approximate, rel=0.01)
    stricter = smallest_difference(1319, 0.1, Demands(tasks=4))
    assert stricter is not None
    assert mcnemar_power(1319, 0.1, stricter, 0.0125) == pytest.approx(0.8, abs=1e-6)


def test_too_few_items_show_nothing() -> None:
    assert smallest_difference(10, 0.1, Demands()) is None
    assert items_needed(0.1, 0.2, Demands()) is None
    assert items_needed(0.5, 1e-5, Demands()) is None


def test_models_that_are_right_on_the_same_items_differ_by_nothing() -> None:
    assert smallest_difference(1000, 0.0, Demands()) is None
    assert smallest_difference_in_clusters([50] * 20, 0.0, 0.02, Demands()) is None
    assert items_needed(0.0, 0.01, Demands()) is None
    assert items_needed_in_clusters([50] * 20, 0.0, 0.02, 0.01, Demands()) is None


def test_items_needed_is_the_other_way_round() -> None:
    found = items_needed(0.1, 0.02, Demands())
    assert found is not None
    assert mcnemar_power(found, 0.1, 0.02, 0.05) >= 0.8 > mcnemar_power(found - 1, 0.1, 0.02, 0.05)
    assert smallest_difference(found, 0.1, Demands()) == pytest.approx(0.02, abs=1e-4)


def test_clusters_without_correlation_are_nearly_independent_items() -> None:
    many = smallest_difference_in_clusters(np.full(1000, 10), 0.2, 0.0, Demands())
    assert many == pytest.approx(smallest_difference(10_000, 0.2, Demands()), rel=0.01)
    alike = smallest_difference_in_clusters(np.full(1000, 10), 0.2, 0.5, Demands())
    assert many is not None and alike is not None
    assert alike == pytest.approx(many * math.sqrt(1 + 9 * 0.5), rel=0.01)


def test_items_needed_in_clusters() -> None:
    sizes = SIZES["57 of MMLU"]
    found = items_needed_in_clusters(sizes, 0.1, 0.01, 0.02, Demands())
    assert found is not None
    enough, less = (
        smallest_difference_in_clusters(sizes * items / sizes.sum(), 0.1, 0.01, Demands())
        for items in (found, found - 1)
    )
    assert enough is not None and less is not None
    assert enough <= 0.02 < less
    assert items_needed_in_clusters(sizes, 0.25, 0.02, 0.01, Demands()) is None  # the clusters differ too much


@pytest.mark.parametrize(("name", "correlation"), [("10 equal", 0.02), ("20 unequal", 0.0), ("57 of MMLU", 0.02)])
def test_signs_see_what_the_plan_says(name: str, correlation: float) -> None:
    """Of 4,000 comparisons with a fixed seed; 5 standard errors are 0.032, and the plan is an approximation."""
    difference = smallest_difference_in_clusters(SIZES[name], 0.2, correlation, Demands())
    assert difference is not None
    drawn = clustered_sums(np.random.default_rng(8), 4000, SIZES[name], correlation, symmetric, difference)
    seen = (p_of_signs(drawn, drawn_signs(len(SIZES[name]), 399)) <= 0.05).mean()
    assert seen == pytest.approx(0.8, abs=0.05)


def test_a_difference_seen_at_a_standard_error() -> None:
    assert difference_seen(0.01, math.inf, Demands()) == pytest.approx(0.01 * (1.959964 + 0.841621))
    expected = stats.t.ppf(1 - 0.05 / 6, 9) + stats.t.ppf(0.9, 9)
    assert difference_seen(1.0, 9, Demands(power=0.9, tasks=3)) == pytest.approx(expected)


@pytest.mark.parametrize(("items", "discordant"), [(100, 0), (100, 1), (100, 5), (50, 22), (1000, 105), (1000, 199)])
def test_what_would_be_seen_of_few_discordant_items(items: int, discordant: int) -> None:
    """By simulation: 0.01 is 5 standard errors of 40,000."""
    seen = accuracies_seen(items, discordant, Demands())
    assert seen is not None
    share = max(discordant / items, seen)
    drawn = np.random.default_rng(0).multinomial(items, [(share - seen) / 2, (share + seen) / 2, 1 - share], 40_000)
    assert (mid_p(drawn[:, 0], drawn[:, 1]) <= 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_what_would_be_seen_of_many_is_near_what_the_standard_error_says() -> None:
    below, above = accuracies_seen(5000, 199, Demands()), accuracies_seen(5000, 200, Demands())
    assert below is not None
    assert below == pytest.approx(above, rel=0.01)
    assert above == pytest.approx((1.959964 + 0.841621) * (0.04 / 5000) ** 0.5)
    assert accuracies_seen(10_042, 5, Demands()) == pytest.approx(accuracies_seen(10_042, 0, Demands()), rel=0.2)


def test_of_too_few_items_none_would_be_seen() -> None:
    assert accuracies_seen(4, 1, Demands()) is None
    assert accuracies_seen(5, 1, Demands()) is not None
    assert accuracies_seen(5, 1, Demands(tasks=2)) is None


def test_ten_clusters_show_nothing_among_sixty_tasks() -> None:
    """None of their 1,024 signs is as rare as 0.05 / 60."""
    sizes = np.full(10, 100.0)
    assert smallest_difference_in_clusters(sizes, 0.2, 0.02, Demands(tasks=50)) is not None
    assert smallest_difference_in_clusters(sizes, 0.2, 0.02, Demands(tasks=60)) is None
    assert items_needed_in_clusters(sizes, 0.2, 0.02, 0.1, Demands(tasks=60)) is None
