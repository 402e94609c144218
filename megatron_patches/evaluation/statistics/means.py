"""Numbers of the same items, such as log-likelihoods, the items independent; and numbers that share no item."""

import math

import numpy as np
from numpy.typing import ArrayLike

from megatron_patches.evaluation.statistics.comparison import Comparison, agreeing
from megatron_patches.evaluation.statistics.distributions import normal_quantile, normal_tails, t_quantile, t_tails

_EQUAL = 1e-9
"""as a part of the differences: what rounding makes of equal ones"""


def compare_numbers(first: ArrayLike, second: ArrayLike, alpha: float) -> Comparison:
    """Student's t test on the differences of two items or more.

    Where all differences are alike t has no spread to go by, and would be sure of two items: their signs alone count
    then, as in McNemar's test.

    Args:
        first: the first model's numbers, one an item.
        second: the second model's, of the same items in the same order.
    """
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    degrees = len(differences) - 1
    difference, error = float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(len(differences)))
    if error <= _EQUAL * abs(difference):
        p = 0.5 ** len(differences) if difference else 1.0
        low, high = agreeing(difference, difference, difference, p, alpha)
        return Comparison(difference, low, high, p, 0.0, "t", degrees)
    reach = t_quantile(1 - alpha / 2, degrees) * error
    p = float(t_tails(difference / error, degrees))
    return Comparison(difference, difference - reach, difference + reach, p, error, "t", degrees)


def compare_unpaired(first: float, first_error: float, second: float, second_error: float, alpha: float) -> Comparison:
    """The z test of two numbers and their standard errors, as if they came from different items.

    Where they come from the same ones it throws away what pairs tell. Of 2,000 items of which 181 are right for the
    first model alone and 235 for the second alone, with accuracies of 0.375 and 0.402, it says p = 0.080; the paired
    test says 0.008.
    """
    difference, error = second - first, math.hypot(first_error, second_error)
    reach = normal_quantile(1 - alpha / 2) * error
    p = float(normal_tails(_ratio(difference, error)))
    return Comparison(difference, difference - reach, difference + reach, p, error, "unpaired", math.inf)


def _ratio(difference: float, error: float) -> float:
    if error > 0:
        return difference / error
    return math.copysign(math.inf, difference) if difference else 0.0
