"""What must hold between the sections of a run; each message names the nearest values that work."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from data_tools.split import parse_split
from megatron_patches.configuration.divisibility import divisors_near, either, multiples_near
from megatron_patches.configuration.name_patterns import check_name_patterns
from megatron_patches.configuration.problems import Problem
from megatron_patches.optim.schedule_config import (
    ConstantScheduleConfig,
    CosineScheduleConfig,
    InverseSquareRootScheduleConfig,
    LinearScheduleConfig,
    WarmupStableDecayScheduleConfig,
)

if TYPE_CHECKING:
    from megatron_patches.config import RunConfig
    from megatron_patches.models.model_config import ModelConfig


def check_run(config: "RunConfig") -> list[Problem]:
    """The problems that no section can see alone; none for a run that can be laid out and trained."""
    checks = (
        _ramp, _compile, _schedule, _intervals, _best_checkpoints, _validation, _objective,
        _tensor_parallel, _sequence_parallel, _pipeline_parallel, _batch, check_name_patterns,
    )  # fmt: skip
    return [problem for check in checks for problem in check(config)]


def _ramp(config: "RunConfig") -> Iterator[Problem]:
    """A ramp that the run does not outlive, or whose sizes have shares of less than one step."""
    ramp, samples = config.training.batch_ramp, config.timetable.end.samples
    if ramp is None:
        return
    if ramp.samples >= samples:
        yield Problem(
            "training.batch_ramp.samples",
            f"training.batch_ramp.samples {ramp.samples} is not below the run's {samples} samples: the global batch "
            f"would never reach {config.training.global_batch_size}; use at most {samples - 1}",
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


def _compile(config: "RunConfig") -> Iterator[Problem]:
    if config.training.compile and config.parallel.zero_stage == 3:
        yield Problem(
            "training.compile",
            "training.compile does not go with parallel.zero_stage 3, which brings and takes away weights between "
            "layers; leave it out, or use zero_stage 2",
        )


def _schedule(config: "RunConfig") -> Iterator[Problem]:
    schedule, unit = config.schedule, config.schedule.unit
    last = whole = config.timetable.position(config.timetable.steps, unit)
    if isinstance(schedule, (LinearScheduleConfig, CosineScheduleConfig, WarmupStableDecayScheduleConfig)):
        last = schedule.decay_end or whole
        if last > whole:
            yield Problem(
                "schedule.decay_end",
                f"schedule.decay_end {last} is beyond the run's {whole} {unit}; use at most {whole}, or leave it out",
            )
    if not isinstance(schedule, ConstantScheduleConfig):
        peak = config.optimizer.learning_rate
        if schedule.final_learning_rate > peak:
            yield Problem(
                "schedule.final_learning_rate",
                f"schedule.final_learning_rate {schedule.final_learning_rate:g} is above the peak, "
                f"optimizer.learning_rate {peak:g}; use at most {peak:g}",
            )
    if schedule.warmup >= last:
        yield Problem(
            "schedule.warmup",
            f"schedule.warmup {schedule.warmup} leaves nothing of the {last} {unit} after it; use at most {last - 1}",
        )
    elif isinstance(schedule, InverseSquareRootScheduleConfig):
        yield from _timescale(schedule)
    elif isinstance(schedule, WarmupStableDecayScheduleConfig) and schedule.warmup + schedule.decay > last:
        yield Problem(
            "schedule.decay",
            f"schedule.warmup {schedule.warmup} and schedule.decay {schedule.decay} do not fit into the {last} {unit} "
            f"before the decay ends; use a decay of at most {last - schedule.warmup}",
        )


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


def _intervals(config: "RunConfig") -> Iterator[Problem]:
    """An interval longer than the run never comes round: it would be an option without effect."""
    steps = config.timetable.steps
    saving = ("every_steps", "ephemeral_every_steps", "weights_every_steps", "keep_every_steps")
    intervals = {"logging.every_steps": config.logging.every_steps}
    intervals |= {f"checkpoint.{key}": getattr(config.checkpoint, key) for key in saving}
    if config.evaluation:
        intervals["evaluation.every_steps"] = config.evaluation.every_steps
    for key, every in intervals.items():
        if every and every > steps:
            yield Problem(key, f"{key} {every} is beyond the run's {steps} steps; use at most {steps}")


def _best_checkpoints(config: "RunConfig") -> Iterator[Problem]:
    """The best are told by a validation of the very step that is saved."""
    if not config.checkpoint.keep_best:
        return
    key, saved = "checkpoint.keep_best", config.checkpoint.every_steps
    if config.evaluation is None:
        yield Problem(key, f"{key} needs validation losses; set evaluation, or remove it")
    elif math.lcm(saved, config.evaluation.every_steps) > config.timetable.steps:
        yield Problem(
            key,
            f"{key}: no step is both validated (evaluation.every_steps {config.evaluation.every_steps}) and saved "
            f"(checkpoint.every_steps {saved}); make one a multiple of the other",
        )


def _validation(config: "RunConfig") -> Iterator[Problem]:
    if config.evaluation and parse_split(config.data.split)[1] == 0:
        yield Problem(
            "data.split",
            f"data.split {config.data.split} gives validation no documents but evaluation asks for "
            f"{config.evaluation.samples} samples; use a split such as 949,50,1, or evaluation: null",
        )


def _objective(config: "RunConfig") -> Iterator[Problem]:
    """Positions that count anew where nothing reads them, or where distances are all that is left of them."""
    position, objective = config.model.position_embedding, config.objective
    if not objective.reset_positions:
        return
    key = "objective.reset_positions"
    if not position.reads_positions:
        yield Problem(
            key, f"{key} has no effect with model.position_embedding {position.name}, which knows distances at most"
        )
    elif objective.reset_attention and position.name == "rotary":
        yield Problem(
            key,
            f"{key} has no effect with rotary positions and objective.reset_attention: within a document distances "
            "stay the same; keep reset_attention alone",
        )


def _tensor_parallel(config: "RunConfig") -> Iterator[Problem]:
    tensor, model = config.parallel.tensor, config.model
    key, remedy = "parallel.tensor", f"nearest parallel.tensor that works: {either(_tensor_sizes_near(model, tensor))}"
    if model.attention_heads % tensor:
        yield Problem(
            key, f"model.attention_heads {model.attention_heads} is not divisible by parallel.tensor {tensor}; {remedy}"
        )
    if not _share_groups(model, tensor):
        yield Problem(
            key,
            f"model.key_value_heads {model.groups} and parallel.tensor {tensor}: one must divide the other, so that "
            f"ranks share heads or heads ranks; {remedy}",
        )
    if model.ffn_size % tensor:
        yield Problem(
            key,
            f"model.ffn_size {model.ffn_size} is not divisible by parallel.tensor {tensor}; {remedy}; nearest "
            f"model.ffn_size: {either(multiples_near(model.ffn_size, tensor))}",
        )
    if model.padded_vocab_size % tensor:
        yield Problem(
            key,
            f"model.vocab_size {model.vocab_size}, padded to {model.padded_vocab_size}, is not divisible by "
            f"parallel.tensor {tensor}; {remedy}; or set model.vocab_multiple to a multiple of {tensor}",
        )


def _tensor_sizes_near(model: "ModelConfig", tensor: int) -> list[int]:
    """The sizes next to `tensor`, below and above, that everything can be shared between; the nearest first."""
    shared = math.gcd(model.attention_heads, model.ffn_size, model.padded_vocab_size)
    sizes = [size for size in range(1, shared + 1) if shared % size == 0 and _share_groups(model, size)]
    below, above = [size for size in sizes if size <= tensor][-1:], [size for size in sizes if size > tensor][:1]
    return sorted(below + above, key=lambda size: abs(size - tensor))


def _share_groups(model: "ModelConfig", tensor: int) -> bool:
    """Whether heads of keys and values can be shared between ranks, or each between several ranks."""
    return max(model.groups, tensor) % min(model.groups, tensor) == 0


def _sequence_parallel(config: "RunConfig") -> Iterator[Problem]:
    length, tensor = config.data.sequence_length, config.parallel.tensor
    if config.parallel.sequence_parallel and length % tensor:
        yield Problem(
            "parallel.sequence_parallel",
            f"data.sequence_length {length} is not divisible by parallel.tensor {tensor}, and sequence_parallel "
            f"shares tokens between them; nearest data.sequence_length: {either(multiples_near(length, tensor))}",
        )


def _pipeline_parallel(config: "RunConfig") -> Iterator[Problem]:
    layers, stages = config.model.layers, config.parallel.pipeline
    if stages > layers:
        yield Problem(
            "parallel.pipeline",
            f"parallel.pipeline {stages} stages are more than the {layers} blocks (model.layers); use at most {layers}",
        )


def _batch(config: "RunConfig") -> Iterator[Problem]:
    whole, micro = config.training.global_batch_size, config.training.micro_batch_size
    if whole % micro:
        yield Problem(
            "training.global_batch_size",
            f"training.global_batch_size {whole} is not divisible by training.micro_batch_size {micro}; nearest "
            f"global_batch_size: {either(multiples_near(whole, micro))}; nearest micro_batch_size: "
            f"{either(divisors_near(whole, micro))}",
        )
