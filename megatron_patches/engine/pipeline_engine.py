"""The engine for pp > 1: DeepSpeed's pipeline, ZeRO 0 or 1."""

import contextlib
import functools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.pipe import PipelineModule
from torch import Tensor

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.batch.stream import Boundary, Stream
from megatron_patches.deepspeed_patches.gradients_only import run_gradients_only
from megatron_patches.engine.deepspeed_engine import (
    DeepSpeedEngine,
    deepspeed_config,
    find_placement,
    mixed_precision_optimizer,
)
from megatron_patches.engine.optimizer_placement import OptimizerPlacement
from megatron_patches.models.build import canonical_parameters
from megatron_patches.objectives.measures import Measures, measure
from megatron_patches.objectives.tally import Tally
from megatron_patches.optim.loss_scale import LossScale
from megatron_patches.optim.optimizer_config import OptimizerConfig
from megatron_patches.parallel.process_groups import ProcessGroups


class PipelineEngine(DeepSpeedEngine):
    """One forward, one backward over all micro-batches; then tied gradients, then data-parallel ones."""

    def __init__(
        self,
        deepspeed: Any,
        placement: OptimizerPlacement,
        groups: ProcessGroups,
        gradient_clip: float,
        loss_scale: LossScale | None,
        measures: Measures,
        first: Boundary,
    ) -> None:
        """`first` is what the first stage reads."""
        super().__init__(deepspeed, placement, groups, gradient_clip, loss_scale, measures)
        self._first = first

    def forward_backward(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        self.deepspeed.set_dataiterator(pairs(self._to_train(micro_batches), self._first))
        run_gradients_only(self.deepspeed, len(micro_batches))
        self.deepspeed._exec_reduce_tied_grads()
        if self.groups.layout.data > 1:  # else DeepSpeed would copy all gradients into a bucket and back, for nobody
            self.deepspeed._exec_reduce_grads()
        self._finish_gradients()
        return self._sum_over_ranks(self.deepspeed.total_loss, self._loss_factor())

    def _update(self) -> None:
        self.deepspeed._exec_optimizer_step()

    def evaluate(self, micro_batches: Sequence[MicroBatch]) -> dict[str, Tally]:
        with self._measuring():
            batches = pairs(self._to_evaluate(micro_batches), self._first)
            found = self.deepspeed.eval_batch(batches, num_micro_batches=len(micro_batches), bcast_loss=False)
        # the last stage's ranks know; DeepSpeed's own broadcast is for one number
        means = torch.zeros(len(self.measures), device=self.groups.device) if found is None else found.float()
        source = self.deepspeed._loss_stage_global_rank()
        dist.broadcast(means, src=source, group=self.deepspeed.grid.get_pipe_parallel_group())
        # eval_batch has averaged over micro-batches and data-parallel ranks
        return self._tallies(means * len(micro_batches) * self.groups.layout.data, micro_batches)

    @contextlib.contextmanager
    def _measuring(self) -> Iterator[None]:
        """Within it the pipeline ends in the measures `[names]` in place of what training minimises."""
        module = self.deepspeed.module
        of_training = module.loss_fn
        module.loss_fn = functools.partial(measure, self.measures)
        self.deepspeed.total_loss = None  # DeepSpeed adds every batch's to it: the last step's has another shape
        try:
            yield
        finally:
            module.loss_fn = of_training


def start_pipeline_engine(
    module: PipelineModule,
    first: Boundary,
    measures: Measures,
    groups: ProcessGroups,
    optimizer: OptimizerConfig,
    zero_stage: int,
    micro_batch_size: int,
    loss_scale: LossScale | None,
) -> PipelineEngine:
    """Hand a stage to DeepSpeed, with an optimizer of its parameters that are trained."""
    # torch warns that a broadcast is no step of autograd; DeepSpeed sends activations and gradients itself
    warnings.filterwarnings("ignore", message="c10d::broadcast_", category=UserWarning)
    parameters = canonical_parameters(module)
    names = {id(parameter): name for name, parameter in parameters.items()}
    tied = {names[id(weight)]: group for weight, group in module.get_tied_weights_and_groups()}
    torch_optimizer = mixed_precision_optimizer(optimizer, parameters, zero_stage, groups, tied)
    started, *_ = deepspeed.initialize(
        model=module,
        optimizer=torch_optimizer,
        config=deepspeed_config(zero_stage, micro_batch_size, groups.layout),
    )
    placement = find_placement(started, parameters, torch_optimizer, groups, tied)
    return PipelineEngine(started, placement, groups, optimizer.gradient_clip, loss_scale, measures, first)


def pairs(micro_batches: Iterable[MicroBatch], first: Boundary) -> Iterator[tuple[Stream, tuple[Tensor, ...]]]:
    """What the first stage reads, in the places before its first layer, and what the last stage's loss does."""
    for batch in micro_batches:
        yield first.pack(batch.inputs), (batch.labels, batch.weights)
