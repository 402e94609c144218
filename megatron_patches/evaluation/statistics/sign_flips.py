"""Clusters compared by the wild bootstrap: the sign of each cluster's difference is drawn, and its t computed again.

If neither model is better, a cluster's difference might as well have had the other sign. So the t of the signs as they
are is held against those of drawn signs (the wild cluster bootstrap of Cameron, Gelbach and Miller 2008, Review of
Economics and Statistics 90:414-427, the hypothesis imposed, with Rademacher weights); of 13 clusters or fewer against
those of all signs. What is equal counts by half, as in McNemar's mid-p test, which this is where each cluster is one
item but for the studentising.

It is preferred to two others for how often, of 20,000 comparisons of models of which neither is better, it called a
difference at 5 % (`python -m tests.statistics_experiment`; clusters alike with a correlation of 0, 0.05 and 0.3):

| clusters | sign flips | clusters drawn with replacement, studentised | t, cluster-robust (CR2) |
|---|---|---|---|
| 10 of 100 items | 5.0, 4.9, 5.1 % | 4.1, 4.0, 3.2 % | 5.1, 5.0, 5.5 % |
| 10 of 20 to 900 | 5.0, 4.8, 5.1 % | 7.5, 6.7, 8.3 % | 8.2, 13.1, 17.0 % |
| 20 of 20 to 874 | 5.4, 5.2, 5.2 % | 5.1, 4.6, 5.2 % | 6.4, 8.2, 9.3 % |
| 57 of 100 to 1,534 (MMLU) | 4.8, 5.1, 5.0 % | 4.9, 4.5, 5.1 % | 5.3, 6.3, 7.0 % |

It supposes that differences of clusters are as often far above their mean as below. Where one cluster of five is far
above and the others a little below, it calls a difference in 9 % (MMLU's sizes) to 18 % (10 unequal ones); the other
two are no cure.
"""

from functools import cache

import numpy as np

from megatron_patches.errors import Refused
from megatron_patches.evaluation.statistics.clusters import (
    Clusters,
    check_number,
    effective_number,
    size_weights,
    standard_error,
)
from megatron_patches.evaluation.statistics.comparison import Comparison, agreeing
from megatron_patches.evaluation.statistics.distributions import Floats

DRAWS = 9_999
SEED = 17
_MOST_ENUMERATED = 13
_EQUAL = 1e-9
_HALVINGS = 60
_DOUBLINGS = 40
"""of the standard error, until a difference is refused; where none is by then, none will be"""


def compare_clusters(differences: Clusters, alpha: float) -> Comparison:
    """Compares two models over clusters of items.

    Args:
        differences: sums of the second model's numbers less the first's, [G].
        alpha: 0.001 at least: 10 clusters have no more than 1,024 signs, which refuse nothing at less.

    Raises:
        Refused: there are fewer than 10 clusters, or a few outweigh the others so much that no interval has an end.
    """
    check_number(len(differences.sizes))
    signs = drawn_signs(len(differences.sizes))
    difference, error = float(differences.mean), float(standard_error(differences))
    flipped = Flipped(differences.sums[None], differences.sizes, signs)
    p = float(flipped.p()[0])
    degrees = max(1.0, effective_number(differences.sizes) - 1)
    if flipped.are_alike:
        return Comparison(
            difference, *agreeing(difference, difference, difference, p, alpha), p, 0.0, "clusters", degrees
        )
    low, high = (_end(flipped, difference, error, alpha, towards) for towards in (-1, 1))
    return Comparison(difference, *agreeing(low, difference, high, p, alpha), p, error, "clusters", degrees)


@cache
def least_p(clusters: int) -> float:
    """The smallest p value that so many clusters can have: all of one mind."""
    return float((np.abs(drawn_signs(clusters).sum(1)) == clusters).mean() / 2)


def drawn_signs(clusters: int, draws: int = DRAWS, seed: int = SEED) -> Floats:
    """Signs to compare with; [draws, clusters]: all there are of few clusters, else drawn. The first ones are all plus,
    which is what was seen."""
    if clusters <= _MOST_ENUMERATED:
        numbers = np.arange(2**clusters)[:, None] >> np.arange(clusters) & 1
        return (1 - 2 * numbers).astype(np.float64)
    drawn = np.random.default_rng(seed).integers(0, 2, (draws, clusters))
    return np.concatenate([np.ones((1, clusters)), (1 - 2 * drawn).astype(np.float64)])


class Flipped:
    """Sums under all signs: multiplied once, however many differences are then supposed."""

    def __init__(self, sums: Floats, sizes: Floats, signs: Floats) -> None:
        """Multiplies sums of [n, G] with signs of [draws, G]."""
        weights = size_weights(sizes)
        self._items = sizes.sum()
        self._weight = (weights * sizes**2).sum()
        self._sums, self._sizes = sums @ signs.T, sizes @ signs.T
        self._cross, self._cross_sizes = (weights * sizes * sums) @ signs.T, (weights * sizes**2) @ signs.T
        self._squares = (weights * sums**2).sum(-1, keepdims=True)
        self._products = (weights * sums * sizes).sum(-1, keepdims=True)

    @property
    def are_alike(self) -> bool:
        """Whether every cluster of every comparison has the same mean but for rounding: then t has no spread to go by,
        and its interval is a point."""
        mean = self._sums[:, :1] / self._items
        variance = self._squares - 2 * mean * self._cross[:, :1] + mean**2 * self._weight
        return bool((variance <= _EQUAL * self._squares).all())

    def p(self, supposed: float = 0.0) -> Floats:
        """Two-sided p values that the mean is the one supposed, 1 where it is just that; [n].

        Statistics are squares of t but for a factor that all share.
        """
        flipped = (self._sums - supposed * self._sizes) / self._items
        cross = self._cross - supposed * self._cross_sizes
        squares = self._squares - 2 * supposed * self._products + supposed**2 * self._weight
        variance = squares - 2 * flipped * cross + flipped**2 * self._weight
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = flipped**2 / np.where(variance > _EQUAL * squares, variance, 0)
            statistic[flipped == 0] = 0
            seen = statistic[:, :1]
            equal = (statistic == seen) | (np.abs(statistic - seen) <= _EQUAL * np.minimum(statistic, seen))
        p = ((statistic > seen) & ~equal).mean(-1) + equal.mean(-1) / 2
        return np.where(seen[:, 0] == 0, 1.0, p)


def _end(flipped: Flipped, difference: float, error: float, alpha: float, towards: int) -> float:
    """The furthest difference that the test does not refuse, by halving.

    Raises:
        Refused: it refuses none, however far.
    """
    inside, outside = difference, difference + towards * error
    for doubling in range(1, _DOUBLINGS):
        if flipped.p(outside) <= alpha:
            break
        inside, outside = outside, difference + towards * 2**doubling * error
    else:
        raise Refused(
            "a few clusters hold so many of the items that the others tell nothing: treat the items as independent, "
            "which says something of these clusters alone"
        )
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if flipped.p(middle) > alpha:
            inside = middle
        else:
            outside = middle
    return inside
