"""Items of one cluster (a subject, a source) are alike, so that they tell less than as many independent ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from megatron_patches.errors import Refused
from megatron_patches.evaluation.statistics.distributions import Floats

LEAST_CLUSTERS = 10
"""fewer say too little of how clusters differ"""


@dataclass(frozen=True)
class Clusters:
    """What is needed of items in clusters, G of them."""

    sizes: Floats
    """items of each; [G]"""
    sums: Floats
    """of the items' numbers; [..., G], the dimensions in front being further draws of them"""

    @property
    def mean(self) -> Floats:
        """Of all items; [...]."""
        return np.asarray(self.sums.sum(-1) / self.sizes.sum(), dtype=np.float64)


def in_clusters(numbers: ArrayLike, names: Sequence[str]) -> Clusters:
    """Sums of the clusters, in the order of their names.

    Args:
        numbers: one an item.
        names: of each item's cluster.
    """
    _, numbered = np.unique(np.asarray(names, dtype=np.str_), return_inverse=True)
    sizes = np.bincount(numbered).astype(np.float64)
    sums = np.bincount(numbered, weights=np.asarray(numbers, dtype=np.float64)).astype(np.float64)
    return Clusters(sizes, sums)


def check_number(clusters: int) -> None:
    """Refuses a comparison over too few clusters.

    Raises:
        Refused: there are fewer than 10.
    """
    if clusters < LEAST_CLUSTERS:
        raise Refused(
            f"{clusters} clusters are too few to tell how clusters differ (at least {LEAST_CLUSTERS}): treat the items "
            "as independent, which says something of these clusters alone"
        )


def size_weights(sizes: Floats) -> Floats:
    """What a cluster's squared deviation counts, so that the variance is unbiased where items are independent (CR2 of
    Bell and McCaffrey 2002); with clusters of one size G / (G - 1)."""
    return 1 / (1 - sizes / sizes.sum())


def standard_error(clusters: Clusters) -> Floats:
    """Cluster-robust standard error of the mean over all items; [...]."""
    deviations = clusters.sums - clusters.mean[..., None] * clusters.sizes
    variance = (size_weights(clusters.sizes) * deviations**2).sum(-1)
    return np.asarray(np.sqrt(variance) / clusters.sizes.sum(), dtype=np.float64)


def intra_cluster_correlation(numbers: ArrayLike, names: Sequence[str]) -> float:
    """How alike items of one cluster are, from 0 (independent) to 1 (the same): the estimate of a one-way analysis of
    variance for clusters of unequal sizes (Donner 1986, International Statistical Review 54:67-82), at least 0.
    """
    values = np.asarray(numbers, dtype=np.float64)
    clusters = in_clusters(values, names)
    sizes, count, groups = clusters.sizes, len(values), len(clusters.sizes)
    between_squares = float((sizes * (clusters.sums / sizes - values.mean()) ** 2).sum())
    within_squares = float(((values - values.mean()) ** 2).sum()) - between_squares
    if groups < 2 or count == groups:
        return 0.0
    between, within = between_squares / (groups - 1), within_squares / (count - groups)
    typical = (count - float((sizes**2).sum()) / count) / (groups - 1)
    total = between + (typical - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total > 0 else 0.0


def design_effect(sizes: ArrayLike, correlation: float) -> float:
    """By how much clusters raise the variance of a mean over items: 1 + (m - 1) correlation (Kish 1965), where m is the
    size of the cluster that an item is in, on average over items."""
    counts = np.asarray(sizes, dtype=np.float64)
    return 1 + (float((counts**2).sum() / counts.sum()) - 1) * correlation


def effective_number(sizes: ArrayLike) -> float:
    """How many clusters of one size tell as much of the spread of independent items' sums as these do: one that
    outweighs all others tells little more than one alone (Satterthwaite 1946, Biometrics Bulletin 2:110-114)."""
    counts = np.asarray(sizes, dtype=np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum())
