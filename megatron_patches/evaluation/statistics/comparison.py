"""What a comparison of two models on one task says. Torch-free."""

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
