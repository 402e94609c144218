"""The engine for pp > 1: DeepSpeed's pipeline, ZeRO 0 or 1."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence

import deepspeed
from deepspeed.pipe import PipelineModule
from torch import Tensor

from megatron_patches.deepspeed_patches.gradients_only import run_gradients_only
from megatron_patches.deepspeed_patches.tied_gradients import sum_tied_gradients
from megatron_patches.engine.deepspeed_engine import DeepSpeedEngine, deepspeed_config, mixed_precision_optimizer
from megatron_patches.models.build import pipeline_layers
from megatron_patches.objectives.micro_batch import MicroBatch
from megatron_patches.optim.optimizer_config import OptimizerConfig
from megatron_patches.parallel.process_groups import ProcessGroups


class PipelineEngine(DeepSpeedEngine):
    """One forward, one backward over all micro-batches; then tied gradients, then data-parallel ones."""

    def __init__(
        self,
        build_module: Callable[[], PipelineModule],
        groups: ProcessGroups,
        optimizer: OptimizerConfig,
        zero_stage: int,
        micro_batch_size: int,
        micro_batches: int,
    ) -> None:
        super().__init__(groups, optimizer.gradient_clip)
        # torch warns that a broadcast is no step of autograd; DeepSpeed sends activations and gradients itself
        warnings.filterwarnings("ignore", message="c10d::broadcast_", category=UserWarning)
        with contextlib.redirect_stdout(io.StringIO()):  # PipelineModule prints its seed, which nothing here uses
            module = build_module()
        torch_optimizer = mixed_precision_optimizer(optimizer, list(module.parameters()), zero_stage, groups)
        self.deepspeed, *_ = deepspeed.initialize(
            model=module,
            optimizer=torch_optimizer,
            config=deepspeed_config(zero_stage, micro_batch_size, micro_batches),
        )
        names = {
            f"{prefix}.{name}": p
            for prefix, layer in pipeline_layers(self.deepspeed.module)
            for name, p in layer.named_parameters()
        }
        self._adopt(names, torch_optimizer)

    def forward_backward(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        # DeepSpeed averages over micro-batches and data-parallel ranks; we want the sum.
        factor = self.groups.layout.data * len(micro_batches)
        assert len(micro_batches) == self.deepspeed.micro_batches
        self.deepspeed.set_dataiterator(self._pairs(micro_batches, factor))
        run_gradients_only(self.deepspeed)
        sum_tied_gradients(self.deepspeed)
        self.deepspeed._exec_reduce_grads()
        return self._sum_over_ranks(self.deepspeed.total_loss, factor)

    def _update(self) -> None:
        self.deepspeed._exec_optimizer_step()

    def evaluate(self, micro_batches: Sequence[MicroBatch]) -> Tensor:
        loss = self.deepspeed.eval_batch(
            self._pairs(micro_batches, 1.0), num_micro_batches=len(micro_batches), bcast_loss=True
        )
        # eval_batch has averaged over micro-batches and data-parallel ranks; every rank has the same number
        return loss.detach() * len(micro_batches) * self.groups.layout.data

    def _pairs(self, micro_batches: Sequence[MicroBatch], factor: float) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        for batch in self._to_device(micro_batches, factor):
            yield batch.tokens, (batch.labels, batch.weights)
