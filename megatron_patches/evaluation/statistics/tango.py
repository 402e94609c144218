"""Interval of a difference of two proportions of the same items: Tango's score interval (Tango 1998, Statistics in
Medicine 17:891-908), which Fagerland, Lydersen and Laake (2014, Statistics in Medicine 33:2850-2875) recommend.

It holds the differences that a score test would not refuse. Unlike the difference and twice its standard error it is
no point where no pair is discordant, and it stays within -1 and 1. `python -m tests.statistics_experiment` shows how
often it holds the truth.
"""

import numpy as np
from numpy.typing import ArrayLike

from megatron_patches.evaluation.statistics.distributions import Floats, normal_quantile

_HALVINGS = 50


def score_interval(more: ArrayLike, fewer: ArrayLike, items: ArrayLike, alpha: float) -> tuple[Floats, Floats]:
    """Lower and upper ends.

    Args:
        more: items that raise the difference; any shape.
        fewer: items that lower it.
        items: all items. The shapes are broadcast.
    """
    up, down, count = np.broadcast_arrays(*(np.asarray(each, dtype=np.float64) for each in (more, fewer, items)))
    upper = _upper_end(up, down, count, normal_quantile(1 - alpha / 2))
    lower = -_upper_end(down, up, count, normal_quantile(1 - alpha / 2))
    return lower, upper


def _upper_end(up: Floats, down: Floats, items: Floats, quantile: float) -> Floats:
    """The largest difference that is not refused, by halving: the statistic falls as the difference rises."""
    inside = (up - down) / items
    outside = np.ones_like(inside)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        refused = _statistic(up, down, items, middle) < -quantile
        inside, outside = np.where(refused, inside, middle), np.where(refused, middle, outside)
    return np.where(up == items, 1.0, inside)


def _statistic(up: Floats, down: Floats, items: Floats, difference: Floats) -> Floats:
    """Score statistic of a difference; the share of the rarer kind is estimated under it."""
    linear = (2 * items - up + down) * difference - up - down
    constant = -down * difference * (1 - difference)
    share = (np.sqrt(np.maximum(0, linear**2 - 8 * items * constant)) - linear) / (4 * items)
    variance = items * (2 * share + difference * (1 - difference))
    distance = up - down - items * difference
    return np.where(distance == 0, 0.0, distance / np.sqrt(np.maximum(variance, np.finfo(np.float64).tiny)))
