"""What can be said of a few noisy measurements taken in turn. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000  # the interval's ends then move by less than a tenth of its width from one seed to another


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of measurements."""

    median: float
    low: float
    """25 % of the measurements are below"""
    high: float
    """25 % of the measurements are above"""


@dataclass(frozen=True)
class Ratio:
    """A median ratio and the interval that holds it with 95 % confidence."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, linearly interpolated."""
    low, median, high = np.quantile(np.asarray(values, dtype=np.float64), [0.25, 0.5, 0.75])
    return Spread(float(median), float(low), float(high))


def median_ratio(numerators: Sequence[float], denominators: Sequence[float], seed: int = 0) -> Ratio:
    """Median of the ratios of measurements that were taken together.

    What slows the machine for a while slows both sides of a pair, so it cancels in the pair's ratio. The interval is
    the percentile bootstrap's (Efron 1979) over pairs: pairs are drawn with replacement, 10,000 times, and between the
    2.5th and the 97.5th percentile of the medians lies the interval. The same seed gives the same interval.
    """
    assert len(numerators) == len(denominators) > 0
    ratios = np.asarray(numerators, dtype=np.float64) / np.asarray(denominators, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [0.025, 0.975])
    return Ratio(float(np.median(ratios)), float(low), float(high))
