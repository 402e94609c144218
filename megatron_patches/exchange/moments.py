"""Whether moments go on as they were."""

from collections.abc import Mapping
from math import isclose
from typing import Any

from megatron_patches.optim.optimizer_config import AdamWConfig
from megatron_patches.run.config import RunConfig


def optimizer_differences(config: RunConfig, theirs: Mapping[str, Any], step: int) -> list[str]:
    """How the run's next updates differ from those the moments come from; where they do not say, nothing does."""
    optimizer = config.optimizer
    ours: dict[str, Any] = {"lr": config.learning_rate(step)}
    if isinstance(optimizer, AdamWConfig):
        ours |= {"betas": (optimizer.beta1, optimizer.beta2), "eps": optimizer.epsilon}
    return [
        f"their {key} was {theirs[key]}, the run's is {wanted} at step {step}"
        for key, wanted in ours.items()
        if key in theirs and not _is_close(theirs[key], wanted)
    ]


def _is_close(theirs: Any, ours: Any) -> bool:
    pairs = zip(theirs, ours, strict=True) if isinstance(ours, tuple) else [(theirs, ours)]
    return all(isclose(one, other, rel_tol=1e-6, abs_tol=1e-12) for one, other in pairs)
