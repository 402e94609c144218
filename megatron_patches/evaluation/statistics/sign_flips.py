"""Clusters compared by the wild bootstrap: the sign of each cluster's difference is drawn, and its t computed again.

If neither model is better, a cluster's difference might as well have had the other sign. So the t of the signs as they
are is held against those of drawn signs (the wild cluster bootstrap of Cameron, Gelbach and Miller 2008, Review of
Economics and Statistics 90:414-427, the hypothesis imposed, with Rademacher weights); of 13 clusters or fewer against
those of all signs. What is equal counts by half, as in McNemar's mid-p test, which this is where each cluster is one
item but for the studentising.

TABLE
"""

import numpy as np

from megatron_patches.evaluation.statistics.clusters import (
    Clusters,
    check_number,
    effective_number,
    size_weights,
    standard_error,
)
from megatron_patches.evaluation.statistics.comparison import Comparison
from megatron_patches.evaluation.statistics.distributions import Floats

DRAWS = 9_999
SEED = 17
_MOST_ENUMERATED = 13
_AT_ONCE = 256
"""draws of sums whose statistics are in memory together"""
_EQUAL = 1e-9
_HALVINGS = 40


def compare_clusters(differences: Clusters, alpha: float) -> Comparison:
    """Compares two models over clusters of items.

    Args:
        differences: sums of the second model's numbers less the first's.

    Raises:
        Refused: there are fewer than 10 clusters.
    """
    check_number(len(differences.sizes))
    signs = drawn_signs(len(differences.sizes))
    difference, error = float(differences.mean), float(standard_error(differences))
    low, high = (_end(differences, signs, alpha, towards) for towards in (-1, 1))
    p = float(p_of_signs(differences, signs))
    degrees = max(1.0, effective_number(differences.sizes) - 1)
    return Comparison(difference, low, high, p, error, "clusters", degrees)


def drawn_signs(clusters: int, draws: int = DRAWS, seed: int = SEED) -> Floats:
    """Signs to compare with; [draws, clusters]: all there are of few clusters, else drawn. The first ones are all plus,
    which is what was seen."""
    if clusters <= _MOST_ENUMERATED:
        numbers = np.arange(2**clusters)[:, None] >> np.arange(clusters) & 1
        return 1.0 - 2.0 * numbers
    drawn = np.random.default_rng(seed).integers(0, 2, (draws, clusters))
    return np.concatenate([np.ones((1, clusters)), 1.0 - 2.0 * drawn])


def p_of_signs(differences: Clusters, signs: Floats) -> Floats:
    """Two-sided p values that the mean is 0; [...], as the sums have it."""
    sums = differences.sums.reshape(-1, differences.sums.shape[-1])
    found = [_p(sums[start : start + _AT_ONCE], differences.sizes, signs) for start in range(0, len(sums), _AT_ONCE)]
    return np.concatenate(found).reshape(differences.sums.shape[:-1])


def _p(sums: Floats, sizes: Floats, signs: Floats) -> Floats:
    """[n] for sums of [n, G]. Statistics are squares of t but for a factor: all signs share it."""
    weights = size_weights(sizes)
    flipped = sums @ signs.T / sizes.sum()
    squares = (weights * sums**2).sum(-1, keepdims=True)
    cross = (weights * sizes * sums) @ signs.T
    variance = squares - 2 * flipped * cross + flipped**2 * (weights * sizes**2).sum()
    variance = np.where(variance > _EQUAL * squares, variance, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(flipped == 0, 0.0, flipped**2 / variance)
    seen = statistic[:, :1]
    equal = (statistic == seen) | (np.abs(statistic - seen) <= _EQUAL * seen)
    beyond = (statistic > seen) & ~equal
    return np.asarray((beyond + equal / 2).mean(-1), dtype=np.float64)


def _end(differences: Clusters, signs: Floats, alpha: float, towards: int) -> float:
    """The furthest difference that the test does not refuse, by halving."""
    inside, step = float(differences.mean), float(standard_error(differences))
    if step == 0:
        return inside
    outside = inside + towards * step
    while _p_of_difference(differences, signs, outside) > alpha:
        inside, outside = outside, outside + towards * step
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if _p_of_difference(differences, signs, middle) > alpha:
            inside = middle
        else:
            outside = middle
    return inside


def _p_of_difference(differences: Clusters, signs: Floats, supposed: float) -> float:
    """p value that the mean is the one supposed."""
    shifted = Clusters(differences.sizes, differences.sums - supposed * differences.sizes)
    return float(p_of_signs(shifted, signs))
