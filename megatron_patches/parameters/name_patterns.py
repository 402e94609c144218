"""Patterns of parameter names (`*.bias`, `layers.0.*`) and what they choose. Torch-free.

They are fnmatch's: `*` stands for any text, dots included, `?` for one character, `[01]` for one of several.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from megatron_patches.training.training_config import TrainingConfig


def is_trained(training: TrainingConfig, name: str) -> bool:
    """Whether a parameter is updated: some pattern of `trainable` fits and none of `frozen` does."""
    return fits_any(name, training.trainable) and not fits_any(name, training.frozen)


def decay_by_name(decays: Mapping[str, float], name: str) -> float | None:
    """Weight decay that the last pattern which fits gives to a parameter; None where none fits."""
    fitting = [decay for pattern, decay in decays.items() if fnmatchcase(name, pattern)]
    return fitting[-1] if fitting else None


def fits_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether any of the patterns fits."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
