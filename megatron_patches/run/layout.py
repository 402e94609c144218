"""The layout of a run on a number of processes: tensor x pipeline x data."""

from collections.abc import Iterator
from itertools import pairwise

from megatron_patches.configuration.divisibility import divisors_near, either, multiples_near
from megatron_patches.errors import TrainyardError, refuse
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.sizes import counted
from megatron_patches.training.training_config import TrainingConfig


def plan_layout(config: RunConfig, processes: int) -> Layout:
    """The layout of a run on so many processes; data parallelism takes what tensor and pipeline leave.

    Raises:
        TrainyardError: the processes do not hold whole copies of the model, or the global batch does not divide by
            micro-batch x data parallel; the nearest values that work are named.
    """
    layout = lay_out(config, processes)
    refuse(global_batch_problems(config, layout))
    return layout


def require_whole_batches(config: RunConfig, layout: Layout, consumed_samples: int) -> None:
    """Raise TrainyardError if a global batch that is still ahead, while it grows, does not divide on this layout."""
    refuse(batch_ramp_problems(config, layout, consumed_samples))


def lay_out(config: RunConfig, processes: int) -> Layout:
    """The layout of a run on so many processes, whether its batches divide there or not.

    Raises:
        TrainyardError: the processes do not hold whole copies of the model.
    """
    parallel = config.parallel
    model = parallel.tensor * parallel.pipeline
    if processes % model:
        raise TrainyardError(
            f"{counted(processes, 'process', 'processes')} cannot be divided into models of parallel.tensor "
            f"{parallel.tensor} x parallel.pipeline {parallel.pipeline} = {counted(model, 'process', 'processes')}; "
            f"nearest number of processes: {either(multiples_near(processes, model))}"
        )
    return Layout(parallel.tensor, parallel.pipeline, processes // model, parallel.sequence_parallel)


def global_batch_problems(config: RunConfig, layout: Layout) -> Iterator[str]:
    """Whether the global batch, once it has grown, divides by micro-batch x data parallel."""
    training = config.training
    together = training.micro_batch_size * layout.data
    if training.global_batch_size % together:
        yield _uneven_batch(training, layout.data, together)


def batch_ramp_problems(config: RunConfig, layout: Layout, consumed_samples: int) -> Iterator[str]:
    """Whether the global batches of the ramp that are still ahead divide on this layout.

    So a run may go on with more processes than its first, small batches could have kept busy. The first that does not
    divide stands for all: their remedy is the same.
    """
    training = config.training
    together = training.micro_batch_size * layout.data
    for stretch, following in pairwise(config.timetable.stretches):
        if following.samples_before > consumed_samples and stretch.batch_size % together:
            nearest = either(multiples_near(stretch.batch_size, together))
            yield (
                f"training.batch_ramp has global batches of {counted(stretch.batch_size, 'sample')}, not divisible by "
                f"micro_batch_size {training.micro_batch_size} x {layout.data} data-parallel ranks = {together}; "
                f"nearest: {nearest}. Choose a start and an increment that divide, or begin with fewer processes and "
                "go on with more"
            )
            return


def _uneven_batch(training: TrainingConfig, data: int, together: int) -> str:
    whole, micro = training.global_batch_size, training.micro_batch_size
    remedy = f"nearest global_batch_size: {either(multiples_near(whole, together))}"
    if whole % data == 0:
        remedy += f"; nearest micro_batch_size: {either(divisors_near(whole // data, micro))}"
    return (
        f"training.global_batch_size {whole} is not divisible by micro_batch_size {micro} x {data} data-parallel ranks "
        f"= {together}; {remedy}"
    )
