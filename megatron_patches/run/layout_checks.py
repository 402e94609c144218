"""What must hold between a run's sizes and its layout; each message names the nearest values that work."""

import math
from collections.abc import Iterator, Sequence

from megatron_patches.configuration.divisibility import divisors_near, either, multiples_near
from megatron_patches.configuration.problems import Problem
from megatron_patches.parameters.name_patterns import is_trained
from megatron_patches.parameters.row import cuts_of
from megatron_patches.run.config import RunConfig
from megatron_patches.sizes import counted


def check_layout(config: RunConfig) -> Iterator[Problem]:
    """The problems of any number of processes; `plan_layout` finds those of a number that is known."""
    for check in (check_tensor_parallel, _sequence_parallel, _pipeline_parallel, _batch):
        yield from check(config)


def check_tensor_parallel(config: RunConfig) -> Iterator[Problem]:
    """What the model's matrices are cut along must divide; keys of the section are told in its own order."""
    tensor, model = config.parallel.tensor, config.model
    remedy = f"nearest parallel.tensor that works: {either(_tensor_sizes_near(config, tensor))}"
    order = list(type(model).model_fields)
    for setting, (cut, size) in sorted(cuts_of(config.parameters).items(), key=lambda each: order.index(each[0])):
        if cut.divides(size, tensor):
            continue
        asked = getattr(model, setting)
        if cut.shared:
            text = (
                f"model.{setting} {size} and parallel.tensor {tensor}: one must divide the other, so that ranks share "
                f"heads or heads ranks; {remedy}"
            )
        elif cut.padded_by is not None:
            text = (
                f"model.{setting} {asked}, padded to {size}, is not divisible by parallel.tensor {tensor}; {remedy}; "
                f"or set model.{cut.padded_by} to a multiple of {tensor}"
            )
        else:
            makes = f", which makes {size} features," if asked != size else ""
            text = f"model.{setting} {asked}{makes} is not divisible by parallel.tensor {tensor}; {remedy}"
            if cut.resizable:
                text += f"; nearest model.{setting}: {either(cut.settings_near(size, tensor))}"
        yield Problem("parallel.tensor", text)


def _tensor_sizes_near(config: RunConfig, tensor: int) -> list[int]:
    """The sizes next to `tensor`, below and above, that everything can be shared between; the nearest first."""
    cuts = cuts_of(config.parameters).values()
    shared = math.gcd(*(size for cut, size in cuts if not cut.shared))
    sizes = [size for size in range(1, shared + 1) if all(cut.divides(whole, size) for cut, whole in cuts)]
    below, above = [size for size in sizes if size <= tensor][-1:], [size for size in sizes if size > tensor][:1]
    return sorted(below + above, key=lambda size: abs(size - tensor))


def _sequence_parallel(config: RunConfig) -> Iterator[Problem]:
    """Every dimension of positions is shared."""
    length, tensor, positions = config.data.sequence_length, config.parallel.tensor, config.lengths.positions
    if not config.parallel.sequence_parallel or _shared(positions, tensor):
        return
    seen = f"data.sequence_length {length} is"
    if [count for _, count in positions] != [length]:
        uneven = [f"{count} positions of {name}" for name, count in positions if count % tensor]
        seen = f"data.sequence_length {length} gives {' and '.join(uneven)},"
    remedy = either(_lengths_near(config))
    yield Problem(
        "parallel.sequence_parallel",
        f"{seen} not divisible by parallel.tensor {tensor}, and sequence_parallel shares tokens between them; "
        f"nearest data.sequence_length: {remedy}",
    )


def _lengths_near(config: RunConfig) -> list[int]:
    """The values of data.sequence_length next to a run's, below and above, whose positions can all be shared."""
    length, tensor = config.data.sequence_length, config.parallel.tensor

    def works(wanted: int) -> bool:
        return _shared(config.objective.lengths(wanted).positions, tensor)

    below, above = range(length - 1, 0, -1), range(length + 1, 2 * length + 64 * tensor)
    return [found for among in (below, above) if (found := next(filter(works, among), None)) is not None]


def _shared(positions: Sequence[tuple[str, int]], tensor: int) -> bool:
    return all(count % tensor == 0 for _, count in positions)


def _pipeline_parallel(config: RunConfig) -> Iterator[Problem]:
    problems = list(check_stages(config))
    yield from problems or _idle_stages(config)


def check_stages(config: RunConfig) -> Iterator[Problem]:
    """Every pipeline stage must have a block."""
    stacks = {row.layer: row.stack for row in config.parameters if row.stack is not None}
    blocks, names = len(stacks), " and ".join(dict.fromkeys(stacks.values()))
    stages = config.parallel.pipeline
    if stages > blocks:
        yield Problem(
            "parallel.pipeline",
            f"parallel.pipeline {stages} stages are more than the {counted(blocks, 'block')} ({names}); use at most "
            f"{blocks}",
        )


def _idle_stages(config: RunConfig) -> Iterator[Problem]:
    """Stages with nothing to train: they would have no optimizer."""
    training, stages = config.training, config.stages
    trained = {row.layer for row in config.parameters if is_trained(training, row.name)}
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
