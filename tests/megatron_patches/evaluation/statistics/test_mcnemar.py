"""McNemar's test in its mid-p form, and Tango's interval, beside published numbers and scipy's."""

import numpy as np
import pytest
from scipy import stats

from megatron_patches.evaluation.statistics.mcnemar import compare_accuracies, mid_p
from megatron_patches.evaluation.statistics.means import compare_unpaired
from megatron_patches.evaluation.statistics.tango import score_interval
from tests.statistics_experiment import paired
from tests.tools.commands.compared_shelves import answers

# Fagerland, Lydersen and Laake 2013 and their tables of Bentur 2009 and Cavo 2012: items of each kind, all, p, interval
PUBLISHED = [(1, 7, 21, 0.039063, (0.0260, 0.5172)), (6, 16, 161, 0.034690, (0.0054, 0.1240))]


@pytest.mark.parametrize(("first_alone", "second_alone", "items", "p", "interval"), PUBLISHED)
def test_published_examples(
    first_alone: int, second_alone: int, items: int, p: float, interval: tuple[float, float]
) -> None:
    found = compare_accuracies(*answers(first_alone, second_alone, 1, items), alpha=0.05)
    assert found.p == pytest.approx(p, abs=1e-6)
    assert (found.low, found.high) == pytest.approx(interval, abs=6e-5)
    assert found.difference == pytest.approx((second_alone - first_alone) / items)


def test_mid_p_is_the_exact_test_less_half_of_what_was_seen() -> None:
    for first in range(12):
        for second in range(12 - first):
            both = first + second
            if both == 0:
                continue
            exact = stats.binomtest(first, both, 0.5).pvalue
            seen = stats.binom.pmf(first, both, 0.5) * (1 if first != second else 0.5)
            assert float(mid_p(first, second)) == pytest.approx(exact - seen, abs=1e-12), (first, second)


def test_large_numbers_and_none() -> None:
    assert mid_p([0, 5_000_000], [0, 5_000_000]).tolist() == pytest.approx([1, 1 - 1.2616e-4], abs=1e-7)
    expected = stats.binom.cdf(1000, 2200, 0.5) + stats.binom.cdf(999, 2200, 0.5)
    assert float(mid_p(1000, 1200)) == pytest.approx(expected, rel=1e-9)


def test_an_interval_holds_what_the_score_test_does_not_refuse() -> None:
    """Its ends by another way: the variance estimated under each difference by a search over the likelihood."""
    more, fewer, items = 16, 6, 161
    for end in score_interval(more, fewer, items, 0.05):
        shares = np.linspace(1e-9, 1 - abs(end), 2_000_001) / 2
        up, down = shares + max(0, float(end)), shares + max(0, -float(end))
        with np.errstate(invalid="ignore", divide="ignore"):
            likelihood = more * np.log(up) + fewer * np.log(down) + (items - more - fewer) * np.log(1 - up - down)
        best = np.nanargmax(likelihood)
        error = np.sqrt((up[best] + down[best] - end**2) / items)
        assert abs((more - fewer) / items - end) / error == pytest.approx(1.959964, abs=1e-4)


def test_no_discordant_pair_leaves_an_interval() -> None:
    found = compare_accuracies([1, 0] * 50, [1, 0] * 50, 0.05)
    assert (found.p, found.difference, found.standard_error) == (1, 0, 0)
    assert found.high == pytest.approx(1.959964**2 / (100 + 1.959964**2), abs=1e-6)
    assert found.low == -found.high


def test_ends_stay_within_what_is_possible() -> None:
    low, high = score_interval([10, 0], [0, 10], [10, 10], 0.05)
    assert high[0] == 1 and low[1] == -1
    assert low[0] == pytest.approx(2 * 0.72247 - 1, abs=1e-4)  # as Wilson's interval of 10 of 10
    assert high[1] == -low[0]


def test_pairs_show_what_two_standard_errors_hide() -> None:
    first, second = (np.array(each) for each in answers(181, 235, 569, 2000))
    errors = [float(each.std(ddof=1)) / 2000**0.5 for each in (first, second)]
    apart = compare_unpaired(float(first.mean()), errors[0], float(second.mean()), errors[1], 0.05)
    assert f"{apart.p:.3f}" == "0.080"
    assert f"{compare_accuracies(first, second, 0.05).p:.3f}" == "0.008"


def test_level_coverage_and_power() -> None:
    """Of 20,000 comparisons with a fixed seed; 5 standard errors are 0.008 at 5 % and 0.014 at 80 %."""
    for line in paired(20_000):
        if "mid-p, summed" in line.shares:
            assert line.shares["mid-p"] == pytest.approx(line.shares["mid-p, summed"], abs=0.015), line
            assert line.shares["mid-p"] > line.shares["exact"] > line.shares["unpaired z"]
        else:
            assert 0.04 <= line.shares["mid-p"] <= 0.06, line
        assert 0.942 <= line.shares["Tango holds"] <= 0.958, line


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.2])
def test_the_interval_holds_0_just_where_the_test_does_not_refuse_it(alpha: float) -> None:
    for first_alone in range(14):
        for second_alone in range(14):
            found = compare_accuracies(*answers(first_alone, second_alone, 3, 40), alpha=alpha)
            assert (found.p <= alpha) == (not found.low <= 0 <= found.high), (first_alone, second_alone)
            assert found.low <= found.difference <= found.high


def test_large_numbers_at_a_small_alpha() -> None:
    """Here the test refuses 0, and the score interval alone would hold it."""
    found = compare_accuracies(*answers(1, 13, 0, 14), alpha=0.001)
    assert (found.p <= 0.001) == (found.low > 0)
