"""Items in clusters: their standard error, how alike they are, and the test by drawn signs."""

from itertools import product

import numpy as np
import pytest

from megatron_patches.errors import Refused
from megatron_patches.evaluation.statistics.clusters import (
    Clusters,
    design_effect,
    effective_number,
    in_clusters,
    intra_cluster_correlation,
    standard_error,
)
from megatron_patches.evaluation.statistics.mcnemar import mid_p
from megatron_patches.evaluation.statistics.sign_flips import compare_clusters, drawn_signs, least_p
from tests.statistics_experiment import SIZES, clustered_sums, p_of_signs, symmetric, t_over_clusters


def test_sums_by_name() -> None:
    found = in_clusters([1, 2, 3, 4], ["b", "a", "b", "a"])
    assert (found.sizes.tolist(), found.sums.tolist(), float(found.mean)) == ([2, 2], [6, 4], 2.5)


def test_clusters_of_one_item_have_the_usual_standard_error() -> None:
    numbers = np.random.default_rng(0).normal(size=30)
    found = standard_error(in_clusters(numbers, [str(number) for number in range(30)]))
    assert float(found) == pytest.approx(numbers.std(ddof=1) / 30**0.5)


def test_the_standard_error_of_unequal_clusters_by_hand() -> None:
    found = standard_error(Clusters(np.array([1.0, 3.0]), np.array([2.0, 2.0])))  # mean 1, deviations 1 and -1
    assert float(found) == pytest.approx((1 / (1 - 1 / 4) + 1 / (1 - 3 / 4)) ** 0.5 / 4)


def test_the_variance_is_unbiased_where_items_are_independent() -> None:
    sizes = SIZES["10 unequal"]
    drawn = Clusters(sizes, np.random.default_rng(0).normal(size=(20_000, 10)) * np.sqrt(sizes))
    assert float((standard_error(drawn) ** 2).mean()) == pytest.approx(1 / sizes.sum(), rel=0.03)


def test_correlation_of_items_in_a_cluster() -> None:
    names = [str(number // 2) for number in range(6)]
    assert intra_cluster_correlation([1, 1, 2, 2, 3, 3], names) == 1
    assert intra_cluster_correlation([1, -1, 1, -1, 1, -1], names) == 0
    # by hand: squares between 4 and within 1, of 2 and 3 degrees of freedom: (2 - 1/3) / (2 + 1/3)
    assert intra_cluster_correlation([0.5, 0.5, 1, 2, 2, 3], ["a", "a", "b", "b", "c", "c"]) == pytest.approx(
        (2 - 1 / 3) / (2 + 1 / 3)
    )
    random = np.random.default_rng(0)
    sizes = random.integers(5, 60, 2000)
    names = np.repeat(np.arange(2000), sizes).astype(str).tolist()
    numbers = np.repeat(random.normal(0, 0.3, 2000), sizes) + random.normal(0, 1, sizes.sum())
    assert intra_cluster_correlation(numbers, names) == pytest.approx(0.09 / 1.09, abs=0.01)


def test_design_effect_and_effective_number() -> None:
    assert design_effect([10, 10], 0.1) == pytest.approx(1.9)
    assert design_effect([5, 15], 0.1) == pytest.approx(1 + 11.5 * 0.1)
    assert effective_number([7, 7, 7]) == pytest.approx(3)
    assert effective_number([1, 1, 1000]) == pytest.approx(1, abs=0.01)


def test_p_of_all_signs_by_hand() -> None:
    sizes, sums = SIZES["10 unequal"], np.array([3.0, -1, 4, 1, 5, -9, 12, 6, 15, 33])

    def t(flipped: np.ndarray) -> float:
        each = Clusters(sizes, flipped)
        return abs(float(each.mean / standard_error(each)))

    seen = t(sums)
    others = np.array([t(sums * signs) for signs in product((1, -1), repeat=10)])
    expected = ((others > seen + 1e-9).sum() + (np.abs(others - seen) <= 1e-9).sum() / 2) / 1024
    assert p_of_signs(Clusters(sizes, sums[None]), drawn_signs(10)).item() == expected
    assert compare_clusters(Clusters(sizes, sums), 0.05).p == expected


def test_clusters_of_one_item_are_mcnemars_mid_p() -> None:
    """Signs of items that are equal change nothing: those of 12 that differ are what is drawn."""
    sums = np.array([1.0] * 10 + [-1.0] * 2)
    assert p_of_signs(Clusters(np.ones(12), sums[None]), drawn_signs(12)).item() == pytest.approx(float(mid_p(10, 2)))


def test_an_interval_ends_where_the_test_begins_to_refuse() -> None:
    sizes = SIZES["57 of MMLU"]
    drawn = clustered_sums(np.random.default_rng(5), 1, sizes, 0.02, symmetric, difference=0.03)
    clusters = Clusters(sizes, drawn.sums[0])
    found = compare_clusters(clusters, 0.05)
    assert found == compare_clusters(clusters, 0.05)  # the signs are those of a seed
    assert found.low < found.difference < found.high
    for end, outwards in ((found.low, -1), (found.high, 1)):
        for step, refused in ((1e-4, True), (-1e-4, False)):
            shifted = Clusters(sizes, clusters.sums - (end + outwards * step) * sizes)
            assert (compare_clusters(shifted, 0.05).p <= 0.05) == refused


def test_sums_that_are_all_zero_or_all_equal() -> None:
    none = compare_clusters(Clusters(np.full(12, 5.0), np.zeros(12)), 0.05)
    assert (none.p, none.low, none.high) == (1, 0, 0)
    same = compare_clusters(Clusters(np.full(12, 5.0), np.ones(12)), 0.05)
    assert same.p < 0.001
    assert same.difference == pytest.approx(0.2)


@pytest.mark.parametrize("noise", [0.0, 1e-15, 1e-12, 1e-9, 1e-6])
def test_differences_that_are_alike_but_for_rounding(noise: float) -> None:
    random = np.random.default_rng(0)
    first = 1000 * random.normal(size=120)
    names = [f"{number % 12}" for number in range(120)]
    found = compare_clusters(in_clusters((first + 0.1) - first + noise * random.normal(size=120), names), 0.05)
    assert (found.p, found.standard_error) == (least_p(12), 0)
    assert found.low == found.high == pytest.approx(0.1, abs=1e-5)


def test_a_cluster_that_holds_nearly_all_items_ends() -> None:
    clusters = Clusters(np.array([1.0] * 9 + [1e6]), np.array([1.0] * 9 + [3.0]))
    with pytest.raises(Refused, match="a few clusters hold so many of the items"):
        compare_clusters(clusters, 0.05)


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05])
def test_an_interval_agrees_with_its_p_where_one_cluster_outweighs_the_others(alpha: float) -> None:
    random = np.random.default_rng(1)
    for count in (10, 13, 14):
        sizes = np.array([10.0] * (count - 1) + [90.0 * (count - 1)])
        counts = sizes.astype(int)
        sums = random.binomial(counts, 0.2) - random.binomial(counts, 0.13)
        found = compare_clusters(Clusters(sizes, sums.astype(np.float64)), alpha)
        assert (found.p <= alpha) == (not found.low <= 0 <= found.high)
        other = compare_clusters(Clusters(sizes, -sums.astype(np.float64)), alpha)
        assert (other.p, other.low, other.high) == pytest.approx((found.p, -found.high, -found.low))


@pytest.mark.parametrize("count", [10, 13, 14])
def test_the_least_p_is_that_of_clusters_of_one_mind(count: int) -> None:
    found = compare_clusters(Clusters(np.full(count, 5.0), np.ones(count)), 0.05)
    assert found.p == pytest.approx(least_p(count))
    assert found.p == pytest.approx(1 / 2**count, abs=1e-4)


def test_few_clusters_are_refused_with_a_remedy() -> None:
    with pytest.raises(Refused, match=r"9 clusters are too few .* treat the items as independent"):
        compare_clusters(Clusters(np.ones(9), np.ones(9)), 0.05)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_signs_keep_their_level(name: str, correlation: float) -> None:
    """Of 4,000 comparisons with a fixed seed; 5 standard errors are 0.017."""
    drawn = clustered_sums(np.random.default_rng(7), 4000, SIZES[name], correlation, symmetric)
    found = (p_of_signs(drawn, drawn_signs(len(SIZES[name]), 399)) <= 0.05).mean()
    assert 0.033 <= found <= 0.067
    if (name, correlation) == ("10 unequal", 0.3):
        assert (t_over_clusters(drawn) <= 0.05).mean() > 0.14
