"""A run in a few lines: what it is, how it is laid out, how long it goes."""

import textwrap
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

from data_tools.wrapped_texts import is_wrapped
from megatron_patches.models.pipeline_partition import Stage
from megatron_patches.optim.optimizer_config import MuonConfig
from megatron_patches.optim.rate_plot import rate_plot
from megatron_patches.optim.schedule import extension_of
from megatron_patches.optim.schedule_config import (
    ConstantScheduleConfig,
    InverseSquareRootScheduleConfig,
    WarmupStableDecayScheduleConfig,
)
from megatron_patches.parallel.layout import Layout
from megatron_patches.parameters.name_patterns import is_trained
from megatron_patches.run.config import RunConfig
from megatron_patches.sizes import counted
from megatron_patches.training.training_config import LossScaleConfig


def tokens_per_step(config: RunConfig) -> int:
    """Tokens of one global batch, once it has grown."""
    return config.training.global_batch_size * config.lengths.counted


def training_samples(config: RunConfig) -> int:
    """Samples of the whole run."""
    return config.timetable.end.samples


def describe_run(config: RunConfig) -> list[tuple[str, str]]:
    """What can be said of a run before it is known where it runs; pairs of a label and its text."""
    training = config.training
    step, grown = tokens_per_step(config), training.batch_ramp
    ramp = f" (first {grown.start * config.lengths.counted:,})" if grown else ""
    first, *extended = config.timetable.ends
    longer = f", extended from {first:,}" if extended else ""
    return [
        ("run", f"{config.name} ({config.family})"),
        ("why", config.why),
        ("model", config.architecture.describe(config.model)),
        ("parameters", describe_parameters(config)),
        ("objective", _describe_objective(config)),
        *([("samples", _describe_wrapped(config))] if is_wrapped(config.data) else []),
        (
            "tokens",
            f"{config.timetable.end.tokens:,} in {counted(config.timetable.steps, 'step')} of {step:,}{ramp}{longer}",
        ),
        ("optimizer", describe_optimizer(config)),
        ("learning rate", describe_schedule(config)),
        ("precision", describe_precision(config)),
    ]


def _describe_objective(config: RunConfig) -> str:
    """What is predicted, and whether texts that share a sample see each other."""
    told = config.objective.describe()
    if (picked := config.lengths.picked) is not None:
        told += f", logits of {picked:,} of a sample's {config.data.sequence_length:,} places"
    if config.data.samples.holds_several and getattr(config.objective, "reset_attention", None) is False:
        seen = "each other" if config.objective.inputs.attention == "full" else "those before them"
        return f"{told}; texts of one sample see {seen} (objective.reset_attention keeps them apart)"
    return told


def _describe_wrapped(config: RunConfig) -> str:
    return f"{config.data.samples.name} of {config.lengths.read:,}, each text between a cls and a sep token"


def describe_parameters(config: RunConfig) -> str:
    """All parameters, and those that are trained where `trainable` and `frozen` leave some out."""
    table = config.parameters
    total = sum(row.elements for row in table)
    trained = sum(row.elements for row in table if is_trained(config.training, row.name))
    return f"{total:,}" if trained == total else f"{total:,}, of which {trained:,} ({trained / total:.2%}) are trained"


def describe_layout(config: RunConfig, layout: Layout) -> list[tuple[str, str]]:
    """How a run is spread over its processes; pairs of a label and its text."""
    training = config.training
    axes = f"tensor {layout.tensor} x pipeline {layout.pipeline} x data {layout.data}"
    switches = f"ZeRO {config.parallel.zero_stage}" + ", sequence parallel" * layout.sequence_parallel
    factors = (
        f"micro-batch {training.micro_batch_size} x accumulation {layout.micro_batches(training)} x data {layout.data}"
    )
    lines = [
        ("layout", f"{counted(layout.world_size, 'process', 'processes')} = {axes}, {switches}"),
        ("global batch", f"{counted(training.global_batch_size, 'sample')} = {factors}"),
    ]
    if layout.pipeline > 1:
        lines.insert(1, ("stages", describe_stages(config.stages)))
    ramp = training.batch_ramp
    if ramp:
        grown = config.timetable.stretches[-1].steps_before
        text = f"{counted(ramp.start, 'sample')} at first, {ramp.increment} more each time, "
        text += f"{training.global_batch_size} from "
        lines.append(("batch ramp", f"{text}step {grown + 1:,} on ({counted(ramp.samples, 'sample')})"))
    return lines


def describe_stages(stages: Sequence[Stage]) -> str:
    """Blocks of each pipeline stage, equal neighbours together, and how far their parameters are apart."""
    runs = [(blocks, len(list(same))) for blocks, same in groupby(stage.blocks for stage in stages)]
    blocks = ", ".join(f"{count} x {blocks}" if count > 1 else str(blocks) for blocks, count in runs)
    least, most = min(stage.parameters for stage in stages), max(stage.parameters for stage in stages)
    spread = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    return f"{blocks} blocks; {spread} parameters on a stage"


def aligned(lines: Iterable[tuple[str, str]], width: int | None = None) -> str:
    """Labels and texts as a block, the texts under one another; wrapped to `width` characters where it is given."""
    if width is None:
        return "\n".join(f"{label:<16} {text}" for label, text in lines)
    wrap = textwrap.TextWrapper(
        max(width, 40), subsequent_indent=" " * 17, break_on_hyphens=False, break_long_words=False
    )
    return "\n".join(wrap.fill(f"{label:<16} {text}") for label, text in lines)


def describe_optimizer(config: RunConfig) -> str:
    """Update rule, decay and clip."""
    optimizer = config.optimizer
    betas = [f"{getattr(optimizer, beta):g}" for beta in ("beta1", "beta2") if hasattr(optimizer, beta)]
    parts = [
        optimizer.name,
        f"betas {' and '.join(betas)}" if betas else "",
        f"weight decay {optimizer.weight_decay:g}" if optimizer.weight_decay else "",
        f"gradient clip {optimizer.gradient_clip:g}" if optimizer.gradient_clip else "no gradient clip",
    ]
    if isinstance(optimizer, MuonConfig):
        parts.append(f"embeddings, head and vectors by adamw at {optimizer.rest.learning_rate:g}")
    return ", ".join(part for part in parts if part)


def describe_precision(config: RunConfig) -> str:
    """Type of the weights, what matrices are multiplied in, and what the backward pass computes again."""
    training = config.training
    scale = ""
    if training.precision == "fp16":
        scale = f", loss scale from {(training.loss_scale or LossScaleConfig()).initial:,.0f}"
    again = {"none": "", "selective": ", selective recomputation", "full": ", full recomputation"}
    matrices = ", blocks' matrices multiplied in float8" if training.fp8 != "none" else ""
    return f"{training.precision}{matrices}{scale}{again[training.recomputation]}"


def describe_schedule(config: RunConfig) -> str:
    """The learning rate's course in a sentence; lengths in the schedule's own unit."""
    return "; ".join([_describe_planned(config), *_describe_extensions(config)])


def _describe_planned(config: RunConfig) -> str:
    """Up to where the run ends at first."""
    schedule, peak = config.schedule, config.optimizer.learning_rate
    unit = schedule.unit
    course = f"{peak:g}"
    if schedule.warmup:
        course = f"0 to {peak:g} in {counted(schedule.warmup, unit[:-1])}"
    if isinstance(schedule, ConstantScheduleConfig):
        return f"{course}, then constant"
    floor = f"{schedule.final_learning_rate:g}"
    if isinstance(schedule, InverseSquareRootScheduleConfig):
        timescale = schedule.timescale or max(1, schedule.warmup)
        return f"{course}, from {counted(timescale, unit[:-1])} on by their inverse square root, not below {floor}"
    end = schedule.decay_end or config.timetable.position(config.timetable.ends[0], unit)
    fall: str = schedule.name
    if isinstance(schedule, WarmupStableDecayScheduleConfig):
        fall = f"constant, then {schedule.shape} in the last {counted(schedule.decay, unit[:-1])}"
    return f"{course}, {fall} to {floor} at {unit[:-1]} {end:,}"


def _describe_extensions(config: RunConfig) -> Iterator[str]:
    timetable, unit = config.timetable, config.schedule.unit
    for number, (start, end) in enumerate(pairwise(timetable.ends)):
        first, last = (f"{unit[:-1]} {timetable.position(step, unit):,}" for step in (start, end))
        shape, final = extension_of(config.schedule, number).shape, f"{config.learning_rate(end):.6g}"
        course = f"constant up to {last}" if shape == "constant" else f"{shape} to {final} at {last}"
        yield f"from {first} on {course}"


def learning_rate_plan(config: RunConfig) -> list[tuple[int, float]]:
    """Steps at which to look at the learning rate, and its value there: the ends, the peak, quarters of each fall."""
    schedule, ends = config.schedule, config.timetable.ends
    steps = {1, *ends, _step_at(config, schedule.warmup)}
    if not isinstance(schedule, ConstantScheduleConfig):
        steps |= set(_quarters(*_decay(config)))
    for start, end in pairwise(ends):
        steps |= set(_quarters(start, end))
    return [(step, config.learning_rate(step)) for step in sorted(steps)]


def rate_table(config: RunConfig, resumed_at: int | None = None) -> list[tuple[int, float, str]]:
    """The same with what happens at a step, and with the steps before and after a resume."""
    steps = dict(learning_rate_plan(config))
    notes: dict[int, list[str]] = {}
    if config.schedule.warmup:
        notes.setdefault(_step_at(config, config.schedule.warmup), []).append("warm-up ends")
    for step in config.timetable.ends[:-1]:
        notes.setdefault(step, []).append("an extension begins (E)")
    if resumed_at is not None:
        near = range(max(1, resumed_at), min(resumed_at + 1, config.timetable.steps) + 1)
        steps |= {step: config.learning_rate(step) for step in near}
        notes.setdefault(resumed_at, []).append("resumes here (R)")
    return [(step, rate, ", ".join(notes.get(step, []))) for step, rate in sorted(steps.items())]


def draw_rates(config: RunConfig, resumed_at: int | None = None, width: int = 80) -> list[str]:
    """The learning rate over steps in characters: `E` where an extension begins, `R` where the run is resumed."""
    last = config.timetable.steps
    marks = dict.fromkeys(config.timetable.ends[:-1], "E")
    if resumed_at and resumed_at <= last:
        marks[resumed_at] = marks.get(resumed_at, "") + "R"
    return rate_plot(config.learning_rate, last, marks, width)


def _quarters(start: int, end: int) -> Iterator[int]:
    return (start + (end - start) * part // 4 for part in range(5))


def _decay(config: RunConfig) -> tuple[int, int]:
    """Steps between which the learning rate falls, before any extension."""
    schedule, timetable = config.schedule, config.timetable
    end = _step_at(config, getattr(schedule, "decay_end", None))
    start = schedule.warmup
    if isinstance(schedule, InverseSquareRootScheduleConfig):
        start = schedule.timescale or schedule.warmup
    elif isinstance(schedule, WarmupStableDecayScheduleConfig):
        start = timetable.position(end, schedule.unit) - schedule.decay
    return _step_at(config, start), end


def _step_at(config: RunConfig, position: int | None) -> int:
    """First step that reaches a position, in the schedule's unit; where it is None or beyond, the step at which the run
    ends at first."""
    timetable, unit = config.timetable, config.schedule.unit
    last = timetable.ends[0]
    if position is None:
        return last
    steps = range(1, last + 1)
    return min(last, bisect_left(steps, position, key=lambda step: timetable.position(step, unit)) + 1)
