"""What must hold between the sections of a run; each message names the nearest values that work."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from data_tools.split import parse_split
from megatron_patches.configuration.divisibility import divisors_near, either, multiples_near
from megatron_patches.configuration.problems import Problem
from megatron_patches.optim.schedule_config import ConstantScheduleConfig

if TYPE_CHECKING:
    from megatron_patches.config import RunConfig


def check_run(config: "RunConfig") -> list[Problem]:
    """The problems that no section can see alone; none for a run that can be laid out and trained."""
    checks = (_precision, _schedule, _intervals, _validation, _tensor_parallel, _pipeline_parallel, _batch)
    return [problem for check in checks for problem in check(config)]


def _precision(config: "RunConfig") -> Iterator[Problem]:
    if config.training.precision == "fp16":
        yield Problem(
            "training.precision",
            "training.precision fp16 needs a loss scaler, which does not exist here, and DeepSpeed refuses fp16 on a "
            "CPU; use bf16 or fp32",
        )


def _schedule(config: "RunConfig") -> Iterator[Problem]:
    schedule, steps = config.schedule, config.training.steps
    last = steps
    if not isinstance(schedule, ConstantScheduleConfig):
        last = schedule.decay_steps or steps
        if last > steps:
            yield Problem(
                "schedule.decay_steps",
                f"schedule.decay_steps {last} is beyond training.steps {steps}; use at most {steps}, or leave it out",
            )
        peak = config.optimizer.learning_rate
        if schedule.final_learning_rate > peak:
            yield Problem(
                "schedule.final_learning_rate",
                f"schedule.final_learning_rate {schedule.final_learning_rate:g} is above the peak, "
                f"optimizer.learning_rate {peak:g}; use at most {peak:g}",
            )
    if schedule.warmup_steps >= last:
        yield Problem(
            "schedule.warmup_steps",
            f"schedule.warmup_steps {schedule.warmup_steps} leaves nothing of the {last} steps after it; "
            f"use at most {last - 1}",
        )


def _intervals(config: "RunConfig") -> Iterator[Problem]:
    """An interval longer than the run never comes round: it would be an option without effect."""
    steps = config.training.steps
    for section in ("checkpoint", "logging", "evaluation"):
        every = getattr(getattr(config, section), "every_steps", 1)
        if every > steps:
            key = f"{section}.every_steps"
            yield Problem(key, f"{key} {every} is beyond training.steps {steps}; use at most {steps}")


def _validation(config: "RunConfig") -> Iterator[Problem]:
    if config.evaluation and parse_split(config.data.split)[1] == 0:
        yield Problem(
            "data.split",
            f"data.split {config.data.split} gives validation no documents but evaluation asks for "
            f"{config.evaluation.samples} samples; use a split such as 949,50,1, or evaluation: null",
        )


def _tensor_parallel(config: "RunConfig") -> Iterator[Problem]:
    tensor, model = config.parallel.tensor, config.model
    shared = math.gcd(model.attention_heads, model.ffn_size, model.vocab_size)
    remedy = f"nearest parallel.tensor that works: {either(divisors_near(shared, tensor))}"
    if model.attention_heads % tensor:
        yield Problem(
            "parallel.tensor",
            f"model.attention_heads {model.attention_heads} is not divisible by parallel.tensor {tensor}; {remedy}",
        )
    for key, size in (("model.ffn_size", model.ffn_size), ("model.vocab_size", model.vocab_size)):
        if size % tensor:
            sizes = either(multiples_near(size, tensor))
            padding = ", rows that no token uses are allowed" if key == "model.vocab_size" else ""
            yield Problem(
                "parallel.tensor",
                f"{key} {size} is not divisible by parallel.tensor {tensor}; {remedy}; nearest {key}: {sizes}{padding}",
            )


def _pipeline_parallel(config: "RunConfig") -> Iterator[Problem]:
    layers, stages = config.model.layers, config.parallel.pipeline
    if layers % stages:
        yield Problem(
            "parallel.pipeline",
            f"model.layers {layers} is not divisible by parallel.pipeline {stages}; nearest parallel.pipeline: "
            f"{either(divisors_near(layers, stages))}; nearest model.layers: {either(multiples_near(layers, stages))}",
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
