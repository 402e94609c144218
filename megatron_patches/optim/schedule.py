"""Learning rates as a pure function of the step. Torch-free: the plan prints it before anything starts."""

from math import cos, pi

from megatron_patches.optim.schedule_config import ConstantScheduleConfig, CosineScheduleConfig, ScheduleConfig


def learning_rate(schedule: ScheduleConfig, peak: float, total_steps: int, step: int) -> float:
    """Learning rate of update number `step` (1 is the first, `total_steps` the last).

    Warm-up is linear and reaches the peak at update `warmup_steps`; the decay ends at `decay_steps` (total_steps if
    unset). Cosine: Loshchilov and Hutter 2017, equation 5, without restarts.
    """
    if step <= schedule.warmup_steps:
        return peak * step / schedule.warmup_steps
    if isinstance(schedule, ConstantScheduleConfig):
        return peak
    end = schedule.decay_steps or total_steps
    progress = min(1.0, (step - schedule.warmup_steps) / max(1, end - schedule.warmup_steps))
    remaining = (1 + cos(pi * progress)) / 2 if isinstance(schedule, CosineScheduleConfig) else 1 - progress
    return schedule.final_learning_rate + (peak - schedule.final_learning_rate) * remaining
