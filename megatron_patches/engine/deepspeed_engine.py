"""The Engine on DeepSpeed: what plain modules and pipelines have in common.

DeepSpeed holds the ZeRO partitions, reduces gradients and runs the pipeline. Norm, clip and verdict are ours, because
they must be the same on every layout, and because a step must not wait for the device.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from megatron_patches.engine.interface import Engine, StatePiece
from megatron_patches.engine.optimizer_placement import FullState, OptimizerPlacement, PartitionedState
from megatron_patches.objectives.micro_batch import MicroBatch
from megatron_patches.optim.build import allocate_state, build_optimizer
from megatron_patches.optim.master_weights import MasterWeights
from megatron_patches.optim.optimizer_config import OptimizerConfig
from megatron_patches.parallel.parameters import info_of
from megatron_patches.parallel.process_groups import ProcessGroups

BUCKET_ELEMENTS = 50_000_000  # 200 MB of fp32 gradients in one message


class DeepSpeedEngine(Engine):
    """Shared by PlainEngine and PipelineEngine; `self.deepspeed` is set before `_adopt`."""

    deepspeed: Any

    def __init__(self, groups: ProcessGroups, gradient_clip: float) -> None:
        self.groups = groups
        self.gradient_clip = gradient_clip

    def _adopt(self, parameters: dict[str, nn.Parameter], optimizer: Optimizer) -> None:
        """Find out where DeepSpeed has put gradients and optimizer state of these parameters."""
        self.parameters = parameters
        self.optimizer = optimizer.inner if isinstance(optimizer, MasterWeights) else optimizer
        allocate_state(self.optimizer)
        counted = {name for name, parameter in parameters.items() if self._counts_here(parameter)}
        if self.deepspeed.zero_optimization_stage() == 0:
            self._where: OptimizerPlacement = FullState(parameters, counted, optimizer, self.groups)
        else:
            self._where = PartitionedState(parameters, counted, self.deepspeed.optimizer, self.groups)

    def _counts_here(self, parameter: nn.Parameter) -> bool:
        """Whether this rank speaks for the parameter: one tensor rank of a replicated one, one stage of a tied one."""
        first_copy = self.groups.coordinates.tensor == 0 or not info_of(parameter).tensor_replicated
        return first_copy and not getattr(parameter, "ds_pipe_replicated", False)

    def grad_norm(self) -> Tensor:
        squares = torch.zeros((), dtype=torch.float32, device=self.groups.device)
        gradients = self._where.counted_gradients()
        if gradients:
            squares += torch.stack(torch._foreach_norm(gradients)).square().sum()
        dist.all_reduce(squares, group=self._where.norm_group)
        return squares.sqrt()

    @torch.no_grad()
    def step(self, learning_rate: float, norm: Tensor) -> None:
        if self.gradient_clip > 0:
            torch._foreach_mul_(self._where.gradients(), (self.gradient_clip / (norm + 1e-6)).clamp(max=1.0))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        # torch's fused kernels read this flag on the device: a bad step is skipped without asking the host.
        self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self._update()

    @abstractmethod
    def _update(self) -> None:
        """Let DeepSpeed run the optimizer and forget the gradients."""

    def state(self) -> list[StatePiece]:
        return self._where.pieces()

    def optimizer_steps(self) -> int:
        for state in self.optimizer.state.values():
            if "step" in state:
                return int(state["step"].item())
        return 0

    def set_optimizer_steps(self, steps: int) -> None:
        for state in self.optimizer.state.values():
            if "step" in state:
                state["step"].fill_(steps)

    def parameter_count(self) -> int:
        here = sum(parameter.numel() for parameter in self.parameters.values() if self._counts_here(parameter))
        total = torch.tensor(here, dtype=torch.int64, device=self.groups.device)
        dist.all_reduce(total, group=self.groups.model_group)
        return int(total.item())

    def _to_device(self, micro_batches: Sequence[MicroBatch], factor: float) -> Iterator[MicroBatch]:
        """Micro-batches on the device, their weights times what DeepSpeed will divide by."""
        device = self.groups.device
        for micro_batch in micro_batches:
            yield MicroBatch(
                tokens=micro_batch.tokens.to(device, non_blocking=True),
                labels=micro_batch.labels.to(device, non_blocking=True),
                weights=(micro_batch.weights * factor).to(device, non_blocking=True),
            )

    def _sum_over_ranks(self, loss_here: Tensor | None, divisor: float) -> Tensor:
        """The global batch's loss from what the last stage's ranks have summed up, each tensor rank the same."""
        speaks = self.groups.last_stage and self.groups.coordinates.tensor == 0 and loss_here is not None
        total = torch.zeros((), dtype=torch.float32, device=self.groups.device)
        if speaks:
            assert loss_here is not None
            total += loss_here.detach().float() / divisor
        dist.all_reduce(total)
        return total


def deepspeed_config(zero_stage: int, micro_batch_size: int, micro_batches: int) -> dict[str, Any]:
    """What DeepSpeed is told. It sees no precision: weights come in their own type, gradients in fp32 (grad_dtype)."""
    zero: dict[str, Any] = {"stage": zero_stage}
    if zero_stage > 0:
        zero |= {"compute_grad_norm": False, "overlap_comm": False, "contiguous_gradients": False}
        zero |= {"reduce_bucket_size": BUCKET_ELEMENTS, "allgather_bucket_size": BUCKET_ELEMENTS}
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": micro_batches,
        "gradient_clipping": 0.0,
        "steps_per_print": None,
        # its timers would make the host wait for the GPU in every forward pass
        "timers": {"throughput": {"enabled": False}},
        "zero_allow_untested_optimizer": True,
        "zero_optimization": zero,
    }


def mixed_precision_optimizer(
    config: OptimizerConfig, parameters: Sequence[nn.Parameter], zero_stage: int, groups: ProcessGroups
) -> Optimizer:
    """The optimizer for DeepSpeed to hold; ZeRO 1 makes fp32 masters of its own, ZeRO 0 does not.

    Autograd is told to sum bf16 gradients in fp32: equal gradients of micro-batches stall in bf16 after 256 of them.
    """
    for parameter in parameters:
        parameter.grad_dtype = torch.float32
    optimizer = build_optimizer(config, parameters)
    return MasterWeights(optimizer) if zero_stage == 0 and groups.dtype != torch.float32 else optimizer
