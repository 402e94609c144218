"""What must hold between a run's length and what happens along it: ramp, schedule, intervals."""

from collections.abc import Iterator
from itertools import pairwise
from math import lcm

from megatron_patches.configuration.problems import Problem
from megatron_patches.optim.schedule import extension_of
from megatron_patches.optim.schedule_config import (
    ConstantScheduleConfig,
    CosineScheduleConfig,
    InverseSquareRootScheduleConfig,
    LinearScheduleConfig,
    WarmupStableDecayScheduleConfig,
)
from megatron_patches.run.config import RunConfig
from megatron_patches.sizes import counted

TRIAL = ", or try a longer run out with --rehearse N"
"""remedy for what a length is too short for: not to shorten the run by hand"""


def check_length(config: RunConfig) -> Iterator[Problem]:
    """The problems of a run's length; of a run without a step nothing else can be said."""
    if config.timetable.ends[0] < 1:
        yield _no_step(config)
        return
    if unused := list(_extensions(config)):
        yield from unused
        return
    yield from _ramp(config)
    yield from _schedule(config)
    yield from _intervals(config)
    yield from _best_checkpoints(config)


def _no_step(config: RunConfig) -> Problem:
    training, length = config.training, config.lengths.counted
    batch = config.timetable.stretches[0].batch_size
    if training.samples is not None:
        key, given, least, what = "training.samples", training.samples, batch, "samples"
    else:
        assert training.tokens is not None
        key, given, least, what = "training.tokens", training.tokens, batch * length, "tokens"
    batch_in_words = counted(batch, "sample") if what == "samples" else f"{counted(batch, 'sample')} of {length} tokens"
    return Problem(
        key, f"{key} {given} is less than the first global batch, {batch_in_words}: no step fits; use at least {least}"
    )


def _ramp(config: RunConfig) -> Iterator[Problem]:
    """A ramp that the run does not outlive, or whose sizes have shares of less than one step."""
    ramp, samples = config.training.batch_ramp, config.timetable.end.samples
    if ramp is None:
        return
    if ramp.samples >= samples:
        yield Problem(
            "training.batch_ramp.samples",
            f"training.batch_ramp.samples {ramp.samples} is not below the run's {counted(samples, 'sample')}: the "
            f"global batch would never reach {config.training.global_batch_size}; use at most {samples - 1}",
        )
    sizes = range(ramp.start, config.training.global_batch_size + 1, ramp.increment)
    skipped = len(sizes) - len(config.timetable.stretches)
    if skipped:
        # a step overshoots its size's share by less than its own samples: shares of so many outlast it
        enough = (len(sizes) - 1) * sizes[-3]
        yield Problem(
            "training.batch_ramp.samples",
            f"training.batch_ramp.samples {ramp.samples} is so short that {skipped} of the ramp's {len(sizes)} sizes "
            f"are skipped; use at least {enough}, or a larger increment",
        )


def _schedule(config: RunConfig) -> Iterator[Problem]:
    schedule, unit = config.schedule, config.schedule.unit
    last = whole = config.timetable.position(config.timetable.ends[0], unit)
    if isinstance(schedule, (LinearScheduleConfig, CosineScheduleConfig, WarmupStableDecayScheduleConfig)):
        last = schedule.decay_end or whole  # beyond the end of a run that is the first part of a longer one
    if not isinstance(schedule, ConstantScheduleConfig):
        peak = config.optimizer.learning_rate
        if schedule.final_learning_rate > peak:
            yield Problem(
                "schedule.final_learning_rate",
                f"schedule.final_learning_rate {schedule.final_learning_rate:g} is above the peak, "
                f"optimizer.learning_rate {peak:g}; use at most {peak:g}",
            )
    # without a decay behind it a warm-up may be the whole run, as in a range test of learning rates
    longest = last if isinstance(schedule, (ConstantScheduleConfig, InverseSquareRootScheduleConfig)) else last - 1
    if schedule.warmup > longest:
        yield Problem(
            "schedule.warmup",
            f"schedule.warmup {schedule.warmup} leaves nothing of the {last} {unit} after it; use at most "
            f"{longest}{TRIAL}",
        )
    elif isinstance(schedule, InverseSquareRootScheduleConfig):
        yield from _timescale(schedule)
    elif isinstance(schedule, WarmupStableDecayScheduleConfig) and schedule.warmup + schedule.decay > last:
        yield Problem(
            "schedule.decay",
            f"schedule.warmup {schedule.warmup} and schedule.decay {schedule.decay} do not fit into the {last} {unit} "
            f"before the decay ends; use a decay of at most {last - schedule.warmup}",
        )


def _extensions(config: RunConfig) -> Iterator[Problem]:
    """Extensions without a step, without a course of their own, or at a rate at which nothing is learnt."""
    training, schedule, ends = config.training, config.schedule, config.timetable.ends
    legs, given, key = len(ends) - 1, len(schedule.extensions), "schedule.extensions"
    if given and given != legs:
        extended = f"training.{training.end_key} extends it {counted(legs, 'time')}" if legs else "it is not extended"
        remedy = f"give {legs}, or none for the usual ones" if legs else "set training.extend_to, or remove them"
        yield Problem(key, f"{key} says the course of {counted(given, 'extension')}, and {extended}; {remedy}")
        return
    for number, (start, end) in enumerate(pairwise(ends)):
        if end <= start:
            lengths, batch = training.lengths, config.timetable.batch_size(start + 1)
            unit = training.length_unit
            step = batch * (1 if unit == "samples" else config.lengths.counted)
            yield Problem(
                f"training.{training.end_key}",
                f"training.{training.end_key}: no step fits between {lengths[number]} and {lengths[number + 1]} "
                f"{unit}; a step has {step} there, so end at {config.timetable.position(start, unit) + step} or later",
            )
            return
    for number, start in enumerate(ends[:-1]):
        reached, final = config.learning_rate(start), extension_of(schedule, number).final_learning_rate
        if reached == 0:
            yield Problem(
                "training.extend_to",
                f"training.{training.end_key}: the learning rate is 0 at step {start:,}, where the extension begins, "
                "and would stay there; a run that is to be extended ends above 0 (schedule.final_learning_rate), and "
                "one that has reached 0 goes on in a child run with a schedule of its own (init_from)",
            )
            return
        if final is not None and final > reached:
            yield Problem(
                key,
                f"{key}: final_learning_rate {final:g} is above {reached:g}, the rate reached at step {start:,}, where "
                f"the extension begins; use at most {reached:g}, or begin a child run with a schedule of its own "
                "(init_from)",
            )
            return


def _timescale(schedule: InverseSquareRootScheduleConfig) -> Iterator[Problem]:
    timescale, warmup, unit = schedule.timescale, schedule.warmup, schedule.unit
    if timescale is None and warmup == 0 and unit != "steps":
        yield Problem(
            "schedule.timescale",
            f"schedule.timescale and schedule.warmup are not given, and the rate would fall from the first of the "
            f"{unit} on, far below the peak in the first step; give one of them, in {unit}",
        )
    elif timescale is not None and timescale < warmup:
        yield Problem(
            "schedule.timescale",
            f"schedule.timescale {timescale} is before the end of the warm-up, {warmup}, and the rate would jump down "
            f"there; use at least {warmup}, or leave it out",
        )


def _intervals(config: RunConfig) -> Iterator[Problem]:
    """An interval longer than the run never comes round: it would be an option without effect."""
    steps = config.timetable.steps
    saving = ("every_steps", "ephemeral_every_steps", "weights_every_steps", "keep_every_steps")
    intervals = {"logging.every_steps": config.logging.every_steps}
    intervals |= {f"checkpoint.{key}": getattr(config.checkpoint, key) for key in saving}
    if config.evaluation:
        intervals["evaluation.every_steps"] = config.evaluation.every_steps
    for key, every in intervals.items():
        if every and every > steps:
            yield Problem(
                key, f"{key} {every} is beyond the run's {counted(steps, 'step')}; use at most {steps}{TRIAL}"
            )


def _best_checkpoints(config: RunConfig) -> Iterator[Problem]:
    """The best are told by a validation of the very step that is saved."""
    if not config.checkpoint.keep_best:
        return
    key, saved = "checkpoint.keep_best", config.checkpoint.every_steps
    if config.evaluation is None:
        yield Problem(key, f"{key} needs validation losses; set evaluation, or remove it")
    elif lcm(saved, config.evaluation.every_steps) > config.timetable.steps:
        yield Problem(
            key,
            f"{key}: no step is both validated (evaluation.every_steps {config.evaluation.every_steps}) and saved "
            f"(checkpoint.every_steps {saved}); make one a multiple of the other",
        )
