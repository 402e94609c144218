"""The layout of a run on a number of processes: tensor x pipeline x data."""

from itertools import pairwise

from data_tools.errors import TrainyardError
from megatron_patches.configuration.divisibility import divisors_near, either, multiples_near
from megatron_patches.parallel.layout import Layout
from megatron_patches.run_config import RunConfig
from megatron_patches.training_config import TrainingConfig


def plan_layout(config: RunConfig, processes: int) -> Layout:
    """The layout of a run on so many processes; data parallelism takes what tensor and pipeline leave.

    Raises:
        TrainyardError: the processes do not hold whole copies of the model, or the global batch does not divide by
            micro-batch x data parallel; the nearest values that work are named.
    """
    parallel, training = config.parallel, config.training
    model = parallel.tensor * parallel.pipeline
    if processes % model:
        raise TrainyardError(
            f"{processes} processes cannot be divided into models of parallel.tensor {parallel.tensor} x "
            f"parallel.pipeline {parallel.pipeline} = {model} processes; nearest number of processes: "
            f"{either(multiples_near(processes, model))}"
        )
    layout = Layout(parallel.tensor, parallel.pipeline, processes // model, parallel.sequence_parallel)
    together = training.micro_batch_size * layout.data
    if training.global_batch_size % together:
        raise TrainyardError(_uneven_batch(training, layout.data, together))
    return layout


def require_whole_batches(config: RunConfig, layout: Layout, consumed_samples: int) -> None:
    """Raise TrainyardError if a global batch that is still ahead, while it grows, does not divide on this layout.

    So a run may go on with more processes than its first, small batches could have kept busy.
    """
    training = config.training
    together = training.micro_batch_size * layout.data
    for stretch, following in pairwise([*config.timetable.stretches, None]):
        assert stretch is not None
        over = following is not None and following.samples_before <= consumed_samples
        if not over and stretch.batch_size % together:
            nearest = either(multiples_near(stretch.batch_size, together))
            raise TrainyardError(
                f"training.batch_ramp has global batches of {stretch.batch_size} samples, not divisible by "
                f"micro_batch_size {training.micro_batch_size} x {layout.data} data-parallel ranks = {together}; "
                f"nearest: {nearest}. Choose a start and an increment that divide, or begin with fewer processes and "
                "go on with more"
            )


def _uneven_batch(training: TrainingConfig, data: int, together: int) -> str:
    whole, micro = training.global_batch_size, training.micro_batch_size
    remedy = f"nearest global_batch_size: {either(multiples_near(whole, together))}"
    if whole % data == 0:
        remedy += f"; nearest micro_batch_size: {either(divisors_near(whole // data, micro))}"
    return (
        f"training.global_batch_size {whole} is not divisible by micro_batch_size {micro} x {data} data-parallel ranks "
        f"= {together}; {remedy}"
    )
