"""The metric that stands for a task where none is named. Torch-free."""

from collections.abc import Iterable

_PRIMARY = (
    *("mcc", "pearson", "acc_norm", "acc", "exact_match"),
    *("pseudo_perplexity", "perplexity", "loss", "bits_per_byte", "byte_perplexity", "word_perplexity"),
)
_BEFORE_OTHERS = "strict"
"""of several filters of one metric, as with GSM8K's answers"""


def primary_metric(metrics: Iterable[str]) -> str | None:
    """A correlation, where a task has one; else acc_norm, else acc, an exact match (strict before others), a
    perplexity, a loss, else the first by name; None of no metrics."""
    names = sorted(metrics, key=lambda name: (_BEFORE_OTHERS not in name, name))
    of_each = (name for word in _PRIMARY for name in names if name == word or name.startswith(f"{word}."))
    return next(of_each, min(names, default=None))
