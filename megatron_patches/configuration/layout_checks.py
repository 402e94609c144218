"""What must hold between a run's sizes and its layout; each message names the nearest values that work."""

import math
from collections.abc import Iterator

from megatron_patches.configuration.divisibility import divisors_near, either, multiples_near
from megatron_patches.configuration.problems import Problem
from megatron_patches.models.model_config import ModelConfig
from megatron_patches.models.parameter_table import parameter_table
from megatron_patches.models.pipeline_partition import layer_of, stages_of
from megatron_patches.optim.name_patterns import is_trained
from megatron_patches.run_config import RunConfig


def check_layout(config: RunConfig) -> Iterator[Problem]:
    """The problems of any number of processes; `plan_layout` finds those of a number that is known."""
    for check in (_tensor_parallel, _sequence_parallel, _pipeline_parallel, _batch):
        yield from check(config)


def _tensor_parallel(config: RunConfig) -> Iterator[Problem]:
    tensor, model = config.parallel.tensor, config.model
    key, remedy = "parallel.tensor", f"nearest parallel.tensor that works: {either(_tensor_sizes_near(model, tensor))}"
    if model.attention_heads % tensor:
        yield Problem(
            key, f"model.attention_heads {model.attention_heads} is not divisible by parallel.tensor {tensor}; {remedy}"
        )
    if model.groups != model.attention_heads and not _share_groups(model, tensor):
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


def _tensor_sizes_near(model: ModelConfig, tensor: int) -> list[int]:
    """The sizes next to `tensor`, below and above, that everything can be shared between; the nearest first."""
    shared = math.gcd(model.attention_heads, model.ffn_size, model.padded_vocab_size)
    sizes = [size for size in range(1, shared + 1) if shared % size == 0 and _share_groups(model, size)]
    below, above = [size for size in sizes if size <= tensor][-1:], [size for size in sizes if size > tensor][:1]
    return sorted(below + above, key=lambda size: abs(size - tensor))


def _share_groups(model: ModelConfig, tensor: int) -> bool:
    """Whether heads of keys and values can be shared between ranks, or each between several ranks."""
    return max(model.groups, tensor) % min(model.groups, tensor) == 0


def _sequence_parallel(config: RunConfig) -> Iterator[Problem]:
    length, tensor = config.data.sequence_length, config.parallel.tensor
    if config.parallel.sequence_parallel and length % tensor:
        yield Problem(
            "parallel.sequence_parallel",
            f"data.sequence_length {length} is not divisible by parallel.tensor {tensor}, and sequence_parallel "
            f"shares tokens between them; nearest data.sequence_length: {either(multiples_near(length, tensor))}",
        )


def _pipeline_parallel(config: RunConfig) -> Iterator[Problem]:
    layers, stages = config.model.layers, config.parallel.pipeline
    if stages > layers:
        yield Problem(
            "parallel.pipeline",
            f"parallel.pipeline {stages} stages are more than the {layers} blocks (model.layers); use at most {layers}",
        )
    else:
        yield from _idle_stages(config)


def _idle_stages(config: RunConfig) -> Iterator[Problem]:
    """Stages with nothing to train: they would have no optimizer."""
    training, stages = config.training, stages_of(config)
    table = parameter_table(config.model, config.data.sequence_length)
    trained = {layer_of(row.name) for row in table if is_trained(training, row.name)}
    if not trained:
        return  # what chooses names says so
    for number, stage in enumerate(stages):
        if trained.isdisjoint(stage.layers):
            yield Problem(
                "parallel.pipeline",
                f"training.trainable and training.frozen leave nothing to train in pipeline stage {number} of "
                f"{len(stages)}, which holds {stage.names}; let a parameter of it be trained, or take fewer stages "
                "(parallel.pipeline)",
            )


def _batch(config: RunConfig) -> Iterator[Problem]:
    whole, micro = config.training.global_batch_size, config.training.micro_batch_size
    if whole % micro:
        yield Problem(
            "training.global_batch_size",
            f"training.global_batch_size {whole} is not divisible by training.micro_batch_size {micro}; nearest "
            f"global_batch_size: {either(multiples_near(whole, micro))}; nearest micro_batch_size: "
            f"{either(divisors_near(whole, micro))}",
        )
    if config.training.batch_ramp is not None:
        for name in ("start", "increment"):
            key, samples = f"training.batch_ramp.{name}", getattr(config.training.batch_ramp, name)
            if samples % micro:
                yield Problem(
                    key,
                    f"{key} {samples} is not divisible by training.micro_batch_size {micro}, and every size on the way "
                    f"must be; nearest: {either(multiples_near(samples, micro))}",
                )
