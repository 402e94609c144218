"""The metric that stands for a task where none is named: the same in tables, pictures and comparisons. Torch-free."""

from collections.abc import Iterable

_ORDER = (
    *("acc_norm", "acc", "exact_match", "perplexity", "loss"),
    *("bits_per_byte", "byte_perplexity", "word_perplexity"),
)


def primary_metric(names: Iterable[str]) -> str | None:
    """The first that there is of acc_norm, acc, exact_match (strict before others), perplexity, loss, bits per byte,
    and perplexity by byte or word; else the first by name; None of no names."""
    known = sorted(names, key=lambda name: ("strict" not in name, name))
    for word in _ORDER:
        for name in known:
            if name == word or name.startswith(f"{word}."):
                return name
    return min(known, default=None)
