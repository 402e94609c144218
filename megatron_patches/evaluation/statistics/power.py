"""What an evaluation can show before it is paid for: the smallest difference that would be seen, the items needed.

For independent items the power of the mid-p McNemar test is summed over all numbers of discordant pairs and all ways
that they can divide; nothing is approximated. Items in clusters have no exact test: there a t test over clusters is
taken, its standard error that of independent items times the root of the design effect, its degrees of freedom those
of as many clusters of one size as tell the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from megatron_patches.evaluation.statistics.clusters import design_effect, effective_number
from megatron_patches.evaluation.statistics.distributions import (
    Floats,
    binomial_below,
    normal_quantile,
    t_quantile,
)
from megatron_patches.evaluation.statistics.mcnemar import mid_p
from megatron_patches.evaluation.statistics.sign_flips import least_p

_HALVINGS = 30
_REACH = 9
"""standard deviations of the number of discordant pairs; what lies outside has a probability below 1e-15"""
_MOST_ITEMS = 10_000_000
_MANY = 200
"""discordant items of which the normal approximation is right within a hundredth"""


@dataclass(frozen=True)
class Demands:
    """What a test must be able to do."""

    power: float = 0.8
    """chance that a difference is seen which is there"""
    alpha: float = 0.05
    """chance that one is seen which is not there, two-sided"""
    tasks: int = 1
    """that are compared at once: Holm's first step divides alpha by their number"""

    @property
    def level(self) -> float:
        """Alpha of one task."""
        return self.alpha / self.tasks


def mcnemar_power(items: int, discordant: float, difference: float, alpha: float) -> float:
    """Exact power of the mid-p McNemar test.

    Args:
        items: independent ones.
        discordant: share of items on which one model alone is right.
        difference: of the accuracies, at most `discordant`.
    """
    counts = _likely_counts(items, discordant)
    chances = np.diff(binomial_below(np.concatenate([[counts[0] - 1], counts]), items, discordant))
    share = min(1.0, (1 + difference / discordant) / 2)
    most = _most_refused(counts, alpha)
    below = binomial_below(most, counts, share)
    above = binomial_below(most, counts, 1 - share)
    return float((chances * (below + above)).sum())


def smallest_difference(items: int, discordant: float, demands: Demands) -> float | None:
    """The smallest difference of accuracies that is seen with the power asked for, independent items.

    Returns:
        None where even the largest, at which all discordant items are right for one model, would not be, or no item
        is discordant.
    """

    def is_seen(difference: float) -> bool:
        return mcnemar_power(items, discordant, difference, demands.level) >= demands.power

    if discordant == 0 or not is_seen(discordant):
        return None
    missed, seen = 0.0, discordant
    for _ in range(_HALVINGS):
        middle = (missed + seen) / 2
        missed, seen = (missed, middle) if is_seen(middle) else (middle, seen)
    return seen


def items_needed(discordant: float, difference: float, demands: Demands) -> int | None:
    """The fewest independent items with which a difference is seen with the power asked for.

    The power rises in small teeth, as what can be refused is a whole number: with all numbers of items from here on
    (but for a tooth of less than a percent) it is enough.

    Returns:
        None where more than 10 million are needed, or the difference is larger than the share of discordant items.
    """
    if not 0 < difference <= discordant:
        return None

    def is_seen(items: int) -> bool:
        return mcnemar_power(items, discordant, difference, demands.level) >= demands.power

    about = discordant * (_reach(math.inf, demands) / difference) ** 2  # of the normal approximation, a little more
    if about > _MOST_ITEMS:
        return None
    missed, seen = 0, math.ceil(about) + 16
    while not is_seen(seen):
        missed, seen = seen, 2 * seen
    return _fewest(missed, seen, is_seen)


def smallest_difference_in_clusters(
    sizes: ArrayLike, discordant: float, correlation: float, demands: Demands
) -> float | None:
    """The same of items in clusters.

    Args:
        sizes: items of each cluster.
        correlation: of the differences of two items of one cluster, from 0 to 1.

    Returns:
        None also where there are too few clusters for any difference to be seen among as many tasks.
    """
    counts = np.asarray(sizes, dtype=np.float64)
    if least_p(len(counts)) > demands.level:
        return None
    reach = _reach(max(1.0, effective_number(counts) - 1), demands)
    ratio = reach**2 * design_effect(counts, correlation) / float(counts.sum())
    found = math.sqrt(discordant * ratio / (1 + ratio))  # difference^2 = ratio (discordant - difference^2)
    return found if 0 < found <= discordant else None


def items_needed_in_clusters(
    sizes: ArrayLike, discordant: float, correlation: float, difference: float, demands: Demands
) -> int | None:
    """The fewest items, in these clusters and in these proportions, with which a difference is seen.

    Returns:
        None where no number of items is enough: the clusters themselves differ too much.
    """
    shares = np.asarray(sizes, dtype=np.float64) / float(np.sum(sizes))

    def is_seen(items: int) -> bool:
        found = smallest_difference_in_clusters(shares * items, discordant, correlation, demands)
        return found is not None and found <= difference

    missed, seen = len(shares) - 1, len(shares)
    while not is_seen(seen):
        missed, seen = seen, 2 * seen
        if seen > _MOST_ITEMS:
            return None
    return _fewest(missed, seen, is_seen)


def _fewest(missed: int, seen: int, is_seen: Callable[[int], bool]) -> int:
    """The fewest items that are enough, between some that are not and some that are."""
    while seen - missed > 1:
        middle = (missed + seen) // 2
        missed, seen = (missed, middle) if is_seen(middle) else (middle, seen)
    return seen


def accuracies_seen(items: int, discordant: int, demands: Demands) -> float | None:
    """The smallest difference of accuracies that is seen where so many items were discordant.

    It takes discordant items itself: as many as the difference, where fewer were. Of few ones the standard error says
    too little: with 1 of 100 it promises a difference of 0.028, which is seen once in seven times.

    Returns:
        None where none is: not even one model right on all items and the other on none.
    """
    share = discordant / items
    reach = _reach(math.inf, demands)
    if discordant >= _MANY:
        return reach * math.sqrt(share / items)

    def is_seen(difference: float) -> bool:
        return mcnemar_power(items, max(share, difference), difference, demands.level) >= demands.power

    missed, seen = 0.0, min(1.0, reach * (reach + math.sqrt(discordant)) / items)
    while not is_seen(seen):
        if seen == 1:
            return None
        missed, seen = seen, min(1.0, 2 * seen)
    for _ in range(_HALVINGS):
        middle = (missed + seen) / 2
        missed, seen = (missed, middle) if is_seen(middle) else (middle, seen)
    return seen


def difference_seen(standard_error: float, degrees: float, demands: Demands) -> float:
    """The smallest difference that would be seen at a standard error that was measured.

    Args:
        degrees: of freedom of the standard error; infinite where it is taken as known.
    """
    return _reach(degrees, demands) * standard_error


def _reach(degrees: float, demands: Demands) -> float:
    """Standard errors that a difference must have."""
    if math.isinf(degrees):
        return normal_quantile(1 - demands.level / 2) + normal_quantile(demands.power)
    return t_quantile(1 - demands.level / 2, degrees) + t_quantile(demands.power, degrees)


def _likely_counts(items: int, discordant: float) -> Floats:
    """Numbers of discordant items that are not all but impossible."""
    spread = _REACH * math.sqrt(items * discordant * (1 - discordant)) + _REACH
    lowest = max(0, math.floor(items * discordant - spread))
    highest = min(items, math.ceil(items * discordant + spread))
    return np.arange(lowest, highest + 1, dtype=np.float64)


def _most_refused(counts: Floats, alpha: float) -> Floats:
    """Of each number of discordant items, how many the rarer kind may have at most for p to be alpha or less; -1 where
    none is few enough."""
    low, high = np.full_like(counts, -1), np.floor(counts / 2)
    while (low < high).any():
        middle = np.ceil((low + high) / 2)
        refused = mid_p(middle, counts - middle) <= alpha
        low, high = np.where(refused, middle, low), np.where(refused, high, middle - 1)
    return low
