"""What a comparison of two models on one task says. Torch-free."""

import math
from dataclasses import dataclass
from typing import Literal

Test = Literal["mcnemar", "t", "clusters", "unpaired"]
"""mid-p McNemar; t on the differences of pairs; the sign-flip bootstrap over clusters; z of two standard errors"""


@dataclass(frozen=True)
class Comparison:
    """A difference, second less first, and how sure it is."""

    difference: float
    low: float
    """the interval holds the true difference with a confidence of 1 - alpha"""
    high: float
    p: float
    """two-sided; of no difference at all"""
    standard_error: float
    """of the difference"""
    test: Test
    degrees: float
    """of freedom of the standard error; infinite where it is taken as known"""


def agreeing(low: float, difference: float, high: float, p: float, alpha: float) -> tuple[float, float]:
    """The ends of an interval, such that it holds 0 where the test does not refuse 0, and does not where it does.

    A test and an interval that do not come from one statistic part company at the edge: of 4 items, all right for one
    model alone, p is 0.063, and the score interval begins above 0.
    """
    if p > alpha:
        return min(low, 0.0), max(high, 0.0)
    if low <= 0 < difference:
        return math.nextafter(0, 1), high
    if difference < 0 <= high:
        return low, math.nextafter(0, -1)
    return low, high
