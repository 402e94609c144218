"""The engine for pp = 1: one plain module under DeepSpeed, any ZeRO stage."""

from collections.abc import Sequence
from typing import Any

import deepspeed
import torch
from torch import Tensor

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.deepspeed_patches.no_second_norm import skip_second_norm
from megatron_patches.engine.deepspeed_engine import (
    DeepSpeedEngine,
    deepspeed_config,
    find_placement,
    mixed_precision_optimizer,
)
from megatron_patches.engine.optimizer_placement import OptimizerPlacement
from megatron_patches.models.build import PlainModel, canonical_parameters
from megatron_patches.objectives.loss import LossFunction
from megatron_patches.objectives.measures import Measures, measure
from megatron_patches.objectives.tally import Tally
from megatron_patches.optim.loss_scale import LossScale
from megatron_patches.optim.optimizer_config import OptimizerConfig
from megatron_patches.parallel.process_groups import ModelParallelUnit, ProcessGroups


class PlainEngine(DeepSpeedEngine):
    """Forward and backward passes follow each other; gradients are reduced in the last one (ZeRO 2 and 3: in each)."""

    def __init__(
        self,
        deepspeed: Any,
        placement: OptimizerPlacement,
        groups: ProcessGroups,
        gradient_clip: float,
        loss_scale: LossScale | None,
        measures: Measures,
        loss: LossFunction,
    ) -> None:
        super().__init__(deepspeed, placement, groups, gradient_clip, loss_scale, measures)
        self._loss = loss

    def forward_backward(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        self.deepspeed.train()
        losses = []
        for number, batch in enumerate(self._to_train(micro_batches)):
            self.deepspeed.set_gradient_accumulation_boundary(number == len(micro_batches) - 1)
            loss = self._loss(self.deepspeed(batch.inputs), (batch.labels, batch.weights))
            self.deepspeed.backward(loss, scale_wrt_gas=False)
            losses.append(loss.detach())
        self._finish_gradients()
        return self._sum_over_ranks(torch.stack(losses).sum(), self._loss_factor())

    def _update(self) -> None:
        self.deepspeed.step()

    @torch.no_grad()
    def evaluate(self, micro_batches: Sequence[MicroBatch]) -> dict[str, Tally]:
        self.deepspeed.eval()
        found = [
            measure(self.measures, self.deepspeed.module(batch.inputs), (batch.labels, batch.weights))
            for batch in self._to_evaluate(micro_batches)
        ]
        # each name's micro-batches side by side: how many other names there are must not change the order of its sum
        sums = torch.stack([of_name.sum() for of_name in torch.stack(found, dim=1)])
        return self._tallies(self._sum_over_ranks(sums, 1.0, (len(self.measures),)), micro_batches)


def start_plain_engine(
    model: PlainModel,
    loss: LossFunction,
    measures: Measures,
    groups: ProcessGroups,
    optimizer: OptimizerConfig,
    zero_stage: int,
    micro_batch_size: int,
    loss_scale: LossScale | None,
    overlap_reduction: bool,
) -> PlainEngine:
    """Hand a model to DeepSpeed, with an optimizer of its parameters that are trained."""
    if zero_stage < 3:
        model.to(groups.device)
    parameters = canonical_parameters(model)
    torch_optimizer = mixed_precision_optimizer(optimizer, parameters, zero_stage, groups)
    started, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch_optimizer,
        mpu=ModelParallelUnit(groups),
        config=deepspeed_config(zero_stage, micro_batch_size, groups.layout),
    )
    if zero_stage == 0 and groups.layout.data == 1:
        # Nobody to reduce with, yet DeepSpeed would copy all gradients into a bucket and back: 2 % of a CPU step.
        started.enable_backward_allreduce = False
    if zero_stage == 3:
        skip_second_norm(started.optimizer)
    placement = find_placement(started, parameters, torch_optimizer, groups, overlap=overlap_reduction)
    return PlainEngine(started, placement, groups, optimizer.gradient_clip, loss_scale, measures, loss)
