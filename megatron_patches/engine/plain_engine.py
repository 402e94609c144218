"""The engine for pp = 1: one plain module under DeepSpeed, ZeRO 0 or 1."""

from collections.abc import Sequence

import deepspeed
import torch
from torch import Tensor

from megatron_patches.engine.deepspeed_engine import DeepSpeedEngine, deepspeed_config, mixed_precision_optimizer
from megatron_patches.models.build import PlainModel
from megatron_patches.objectives.loss import weighted_loss
from megatron_patches.objectives.micro_batch import MicroBatch
from megatron_patches.optim.optimizer_config import OptimizerConfig
from megatron_patches.parallel.process_groups import ModelParallelUnit, ProcessGroups


class PlainEngine(DeepSpeedEngine):
    """Forward and backward passes follow each other; gradients are reduced in the last one."""

    def __init__(
        self,
        model: PlainModel,
        groups: ProcessGroups,
        optimizer: OptimizerConfig,
        zero_stage: int,
        micro_batch_size: int,
        micro_batches: int,
    ) -> None:
        super().__init__(groups, optimizer.gradient_clip)
        model.to(groups.device)
        torch_optimizer = mixed_precision_optimizer(optimizer, list(model.parameters()), zero_stage, groups)
        self.deepspeed, *_ = deepspeed.initialize(
            model=model,
            optimizer=torch_optimizer,
            mpu=ModelParallelUnit(groups),
            config=deepspeed_config(zero_stage, micro_batch_size, micro_batches),
        )
        if zero_stage == 0 and groups.layout.data == 1:
            # Nobody to reduce with, yet DeepSpeed would copy all gradients into a bucket and back: 2 % of a CPU step.
            self.deepspeed.enable_backward_allreduce = False
        names = {
            f"{prefix}.{name}": p for prefix, layer in model.named_layers() for name, p in layer.named_parameters()
        }
        self._adopt(names, torch_optimizer)

    def forward_backward(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        self.deepspeed.train()
        data_parallel = self.groups.layout.data  # DeepSpeed averages over data-parallel ranks; we want the sum
        losses = []
        for number, batch in enumerate(self._to_device(micro_batches, data_parallel)):
            self.deepspeed.set_gradient_accumulation_boundary(number == len(micro_batches) - 1)
            loss = weighted_loss(self.deepspeed(batch.tokens), (batch.labels, batch.weights))
            self.deepspeed.backward(loss, scale_wrt_gas=False)
            losses.append(loss.detach())
        return self._sum_over_ranks(torch.stack(losses).sum(), data_parallel)

    def _update(self) -> None:
        self.deepspeed.step()

    @torch.no_grad()
    def evaluate(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        self.deepspeed.eval()
        losses = [
            weighted_loss(self.deepspeed.module(batch.tokens), (batch.labels, batch.weights))
            for batch in self._to_device(micro_batches, 1.0)
        ]
        return self._sum_over_ranks(torch.stack(losses).sum(), 1.0)
