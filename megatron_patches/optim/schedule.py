"""Learning rates as a pure function of the position in the run. Torch-free."""

from collections.abc import Sequence
from math import cos, pi, sqrt

from megatron_patches.optim.schedule_config import (
    ConstantScheduleConfig,
    ExtensionConfig,
    InverseSquareRootScheduleConfig,
    ScheduleConfig,
    WarmupStableDecayScheduleConfig,
)


def learning_rate(schedule: ScheduleConfig, peak: float, position: int, ends: Sequence[int]) -> float:
    """Learning rate of the update that ends at `position`, in the schedule's unit.

    Up to the first of the `ends` the schedule itself says it. Each later one is the end of an extension, which begins
    at the rate reached, at the end before it: so the rate never jumps. Behind the last end it stays as it is there.
    """
    first = ends[0]
    if position <= first or len(ends) == 1:
        return _planned(schedule, peak, position, first)
    reached, start = _planned(schedule, peak, first, first), first
    for number, end in enumerate(ends[1:]):
        extension = extension_of(schedule, number)
        final = extension.falls_to(reached)
        if position <= end:
            return final + (reached - final) * _remaining(extension.shape, (position - start) / (end - start))
        reached, start = final, end
    return reached


def extension_of(schedule: ScheduleConfig, number: int) -> ExtensionConfig:
    """How the rate goes in extension `number`, 0 for the first: as the schedule says, else as usual."""
    return schedule.extensions[number] if number < len(schedule.extensions) else ExtensionConfig()


def _planned(schedule: ScheduleConfig, peak: float, position: int, end: int) -> float:
    """The rate of a run that ends at `end`.

    Warm-up is linear and reaches the peak at `warmup`; the decay ends at `decay_end` (`end` if unset). Cosine:
    Loshchilov and Hutter 2017, equation 5, without restarts. Inverse square root: Raffel et al. 2020, section 3.1.2.
    """
    if position < schedule.warmup:
        return peak * position / schedule.warmup
    if isinstance(schedule, ConstantScheduleConfig):
        return peak
    if isinstance(schedule, InverseSquareRootScheduleConfig):
        timescale = schedule.timescale or max(1, schedule.warmup)
        return max(schedule.final_learning_rate, peak * sqrt(timescale / max(timescale, position)))
    last = schedule.decay_end or end
    first = schedule.warmup
    if isinstance(schedule, WarmupStableDecayScheduleConfig):
        first = max(first, last - schedule.decay)
    progress = min(1.0, max(0, position - first) / max(1, last - first))
    shape = schedule.shape if isinstance(schedule, WarmupStableDecayScheduleConfig) else schedule.name
    return schedule.final_learning_rate + (peak - schedule.final_learning_rate) * _remaining(shape, progress)


def _remaining(shape: str, progress: float) -> float:
    """Share of the fall that is still ahead."""
    if shape == "constant":
        return 1.0
    if shape == "cosine":
        return (1 + cos(pi * progress)) / 2
    return 1 - sqrt(progress) if shape == "square_root" else 1 - progress
