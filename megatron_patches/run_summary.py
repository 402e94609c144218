"""A run in a few lines: what it is, how it is laid out, how long it goes."""

from collections.abc import Iterable

from megatron_patches.config import RunConfig
from megatron_patches.layout import Layout
from megatron_patches.optim.schedule import learning_rate
from megatron_patches.optim.schedule_config import ConstantScheduleConfig
from megatron_patches.parameter_count import count_parameters


def tokens_per_step(config: RunConfig) -> int:
    """Tokens of one global batch."""
    return config.training.global_batch_size * config.data.sequence_length


def training_samples(config: RunConfig) -> int:
    """Samples of the whole run."""
    return config.training.steps * config.training.global_batch_size


def describe_run(config: RunConfig) -> list[tuple[str, str]]:
    """What can be said of a run before it is known where it runs; pairs of a label and its text."""
    training = config.training
    parameters = count_parameters(config.model, config.data.sequence_length).total
    step = tokens_per_step(config)
    return [
        ("run", f"{config.name} ({config.family})"),
        ("why", config.why),
        ("parameters", f"{parameters:,}"),
        ("tokens", f"{training.steps * step:,} in {training.steps:,} steps of {step:,}"),
        ("learning rate", describe_schedule(config)),
        ("precision", training.precision),
    ]


def describe_layout(config: RunConfig, layout: Layout) -> list[tuple[str, str]]:
    """How a run is spread over its processes; pairs of a label and its text."""
    training = config.training
    axes = f"tensor {layout.tensor} x pipeline {layout.pipeline} x data {layout.data}"
    factors = (
        f"micro-batch {training.micro_batch_size} x accumulation {layout.micro_batches(training)} x data {layout.data}"
    )
    return [
        ("layout", f"{layout.world_size} processes = {axes}, ZeRO {config.parallel.zero_stage}"),
        ("global batch", f"{training.global_batch_size} samples = {factors}"),
    ]


def aligned(lines: Iterable[tuple[str, str]]) -> str:
    """Labels and texts as a block, the texts under one another."""
    return "\n".join(f"{label:<16} {text}" for label, text in lines)


def describe_schedule(config: RunConfig) -> str:
    """The learning rate's course in a sentence."""
    schedule, peak = config.schedule, config.optimizer.learning_rate
    course = f"{peak:g}"
    if schedule.warmup_steps:
        course = f"0 to {peak:g} in {schedule.warmup_steps:,} steps"
    if isinstance(schedule, ConstantScheduleConfig):
        return f"{course}, then constant"
    end = schedule.decay_steps or config.training.steps
    return f"{course}, {schedule.name} to {schedule.final_learning_rate:g} at step {end:,}"


def learning_rate_plan(config: RunConfig) -> list[tuple[int, float]]:
    """Steps at which to look at the learning rate, and its value there: the ends, the peak, quarters of the decay."""
    schedule, last = config.schedule, config.training.steps
    end = last if isinstance(schedule, ConstantScheduleConfig) else schedule.decay_steps or last
    start = max(1, schedule.warmup_steps)
    steps = {1, last, *(start + (end - start) * quarter // 4 for quarter in range(5))}
    peak = config.optimizer.learning_rate
    return [(step, learning_rate(schedule, peak, last, step)) for step in sorted(steps)]
