"""The one number that a run is known by."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from megatron_patches.artefacts.chosen import UNNAMED_GROUP, VALIDATION_LOSS

_PREFERRED = (VALIDATION_LOSS, "val_ppl", "perplexity")
_LOWER_IS_BETTER = ("loss", "ppl", "perplexity", "bits")


@dataclass(frozen=True)
class BestMetric:
    """The best value of the metric that counts most."""

    name: str
    value: float
    step: int | None = None
    """of the validation that found it; None where it was not a validation of the run itself"""
    group: str | None = None
    """the validation group whose loss it is, where groups have names"""

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4g}"

    @property
    def sentence(self) -> str:
        """For a page without a heading that explains it."""
        if self.step is not None:
            on = f" on {self.group}" if self.group else ""
            return f"{self.name.replace('_', ' ')}{on} {self.value:.4g} at step {self.step}"
        return f"{'lowest' if _lower_is_better(self.name) else 'highest'} {self}"


def best_metric(found: Iterable[tuple[str, float, int | None]], group: str | None = None) -> BestMetric | None:
    """Of names, values and steps: the validation loss, else a perplexity, else the first by name.

    Args:
        group: the validation group whose losses they are; None where that is not known.
    """
    by_name: dict[str, list[BestMetric]] = {}
    for name, value, step in found:
        if math.isfinite(value):
            by_name.setdefault(name, []).append(BestMetric(name, value, step))
    if not by_name:
        return None
    name = next((name for name in _PREFERRED if name in by_name), None) or min(by_name)
    sign = 1 if _lower_is_better(name) else -1
    # of equal values the one whose step is known, and of these the first
    best = min(by_name[name], key=lambda each: (sign * each.value, each.step is None, each.step or 0))
    named = group if name == VALIDATION_LOSS and group != UNNAMED_GROUP else None
    return replace(best, group=named)


def _lower_is_better(name: str) -> bool:
    return any(part in name.lower() for part in _LOWER_IS_BETTER)
