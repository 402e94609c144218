"""The metrics of GLUE, of a list of predictions. Torch-free.

Where a metric is not defined, as with predictions that are all the same, it is 0: they tell nothing.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def accuracy(predicted: Numbers, labels: Numbers) -> float:
    """Share of equal ones."""
    return float((predicted == labels).mean())


def f1(predicted: Numbers, labels: Numbers) -> float:
    """Harmonic mean of precision and recall of label 1."""
    right = float(((predicted == 1) & (labels == 1)).sum())
    both = float((predicted == 1).sum() + (labels == 1).sum())
    return 2 * right / both if both else 0.0


def matthews(predicted: Numbers, labels: Numbers) -> float:
    """Matthews' correlation of two labels, 0 and 1: Pearson's of the two lists (Matthews 1975)."""
    return pearson(predicted, labels)


def pearson(predicted: Numbers, labels: Numbers) -> float:
    """Pearson's correlation."""
    first, second = predicted - predicted.mean(), labels - labels.mean()
    spread = float(np.sqrt((first**2).sum()) * np.sqrt((second**2).sum()))
    # rounding leaves equal numbers a spread
    is_flat = np.ptp(predicted) <= 1e-12 * np.abs(predicted).max() or np.ptp(labels) == 0
    return 0.0 if is_flat or spread == 0 else float((first * second).sum() / spread)


def spearman(predicted: Numbers, labels: Numbers) -> float:
    """Spearman's correlation: Pearson's of the ranks, where equal numbers share the mean of theirs."""
    return pearson(_ranks(predicted), _ranks(labels))


def squared_error(predicted: Numbers, labels: Numbers) -> float:
    """Mean of the squared differences."""
    return float(((predicted - labels) ** 2).mean())


def _ranks(numbers: Numbers) -> Numbers:
    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts - 1) / 2)[place], dtype=np.float64)


METRICS: Mapping[str, Callable[[Numbers, Numbers], float]] = {
    "acc": accuracy, "f1": f1, "mcc": matthews, "pearson": pearson, "spearman": spearman,
    "squared_error": squared_error,
}  # fmt: skip
LOWER_IS_BETTER = frozenset(("squared_error",))
MEANS = frozenset(("acc", "squared_error"))
"""those that are means over items, so that an item has one too"""
