"""Two models right or wrong on the same items, the items independent: McNemar's test (mid-p), Tango's interval.

Only items on which one model is right and the other wrong tell them apart. If neither is better, each of the two kinds
is as likely, so their numbers are binomial with 1/2. The exact test counts what was seen with what is further from it
and is too careful; mid-p counts what was seen by half. Over 9,595 scenarios mid-p stayed within its level and was
nearly as powerful as the exact unconditional test (Fagerland, Lydersen and Laake 2013, BMC Medical Research
Methodology 13:91).
"""

import numpy as np
from numpy.typing import ArrayLike

from megatron_patches.evaluation.statistics.comparison import Comparison, agreeing
from megatron_patches.evaluation.statistics.distributions import Floats, binomial_below
from megatron_patches.evaluation.statistics.tango import score_interval


def mid_p(first_alone: ArrayLike, second_alone: ArrayLike) -> Floats:
    """Two-sided mid-p values.

    Args:
        first_alone: items that the first model alone has right; any shape.
        second_alone: those that the second alone has right; the same shape.

    Returns:
        Of the same shape; 1 where there is no such item.
    """
    first, second = np.asarray(first_alone), np.asarray(second_alone)
    fewer, both = np.minimum(first, second), first + second
    upto, below = binomial_below(fewer, both, 0.5), binomial_below(fewer - 1, both, 0.5)
    found = np.where(first == second, 1 - (upto - below) / 2, upto + below)
    return np.where(both == 0, 1.0, found)


def compare_accuracies(first: ArrayLike, second: ArrayLike, alpha: float) -> Comparison:
    """Compares two models on the same items.

    Args:
        first: 1 where the first model is right, else 0; one an item.
        second: the same of the second model.
    """
    right, right_too = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    items = len(right)
    first_alone, second_alone = int((right > right_too).sum()), int((right < right_too).sum())
    ends = score_interval(second_alone, first_alone, items, alpha)
    difference = (second_alone - first_alone) / items
    error = np.sqrt(max(0.0, (first_alone + second_alone) / items - difference**2) / items)
    p = float(mid_p(first_alone, second_alone))
    low, high = agreeing(float(ends[0]), difference, float(ends[1]), p, alpha)
    return Comparison(difference, low, high, p, float(error), "mcnemar", float("inf"))
