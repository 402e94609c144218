"""The Engine on DeepSpeed: what plain modules and pipelines have in common.

DeepSpeed holds the ZeRO partitions, reduces gradients and runs the pipeline. Norm, clip and verdict are ours, because
they must be the same on every layout, and because a step must not wait for the device.
"""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.deepspeed_patches.flat_gradients import FlatGradients
from megatron_patches.engine.interface import Engine
from megatron_patches.engine.optimizer_placement import OptimizerPlacement, is_counted_here, place_optimizer
from megatron_patches.objectives.measures import Measures
from megatron_patches.objectives.tally import Tally
from megatron_patches.optim.build import build_optimizer
from megatron_patches.optim.loss_scale import LossScale
from megatron_patches.optim.master_weights import MasterWeights
from megatron_patches.optim.optimizer_config import OptimizerConfig
from megatron_patches.parallel.layout import Layout
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.parameters.info import info_of

BUCKET_ELEMENTS = 50_000_000  # 200 MB of fp32 gradients in one message


class DeepSpeedEngine(Engine):
    """Shared by PlainEngine and PipelineEngine.

    `deepspeed` is DeepSpeed's engine, started, and `placement` where it keeps things (`find_placement`).
    """

    def __init__(
        self,
        deepspeed: Any,
        placement: OptimizerPlacement,
        groups: ProcessGroups,
        gradient_clip: float,
        loss_scale: LossScale | None,
        measures: Measures,
    ) -> None:
        self.deepspeed = deepspeed
        self.placement = placement
        self.parameters = placement.parameters
        self.optimizer = placement.optimizer
        self.groups = groups
        self.gradient_clip = gradient_clip
        self.loss_scale = loss_scale
        self.measures = measures
        self._no_steps = torch.zeros((), dtype=torch.int64, device=groups.device)
        """the count of an optimizer that keeps none"""

    @torch.no_grad()
    def _finish_gradients(self) -> None:
        """What is left to do to gradients that DeepSpeed has reduced: sum parts, take the loss scale out."""
        self.placement.sum_partial_gradients()
        if self.loss_scale is not None and (gradients := self.placement.gradients()):
            torch._foreach_mul_(gradients, 1 / self.loss_scale.scale)

    def grad_norm(self) -> Tensor:
        squares = torch.zeros((), dtype=torch.float32, device=self.groups.device)
        gradients = self.placement.counted_gradients()
        if gradients:
            squares += torch.stack(torch._foreach_norm(gradients)).square().sum()
        dist.all_reduce(squares)
        return squares.sqrt()

    @torch.no_grad()
    def step(self, learning_rate: float, norm: Tensor) -> None:
        gradients = self.placement.gradients()
        if self.gradient_clip > 0 and gradients:
            torch._foreach_mul_(gradients, (self.gradient_clip / (norm + 1e-6)).clamp(max=1.0))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        # torch's fused kernels read this flag on the device: a bad step is skipped without asking the host.
        found_inf = (~norm.isfinite()).float()
        self.optimizer.found_inf = found_inf  # type: ignore[attr-defined]
        self._update()
        if self.loss_scale is not None:
            self.loss_scale.update(found_inf)

    @abstractmethod
    def _update(self) -> None:
        """Let DeepSpeed run the optimizer and forget the gradients."""

    def state(self) -> list[StatePiece]:
        return self.placement.pieces()

    def counters(self) -> dict[str, Tensor]:
        steps = next(self._step_counts(), self._no_steps)
        return {"optimizer_steps": steps} | ({} if self.loss_scale is None else self.loss_scale.counters())

    def load_counters(self, counters: Mapping[str, float]) -> None:
        for steps in self._step_counts():
            steps.fill_(counters["optimizer_steps"])
        # a run in another precision that is continued in fp16 starts with the first scale
        if self.loss_scale is not None and "scale" in counters:
            self.loss_scale.load(counters)

    def _step_counts(self) -> Iterator[Tensor]:
        """The optimizer counts for each of its tensors, all alike."""
        return (state["step"] for state in self.optimizer.state.values() if "step" in state)

    def parameter_count(self) -> int:
        counted = (parameter for parameter in self.parameters.values() if is_counted_here(parameter, self.groups))
        here = sum(info_of(parameter).slice.elements for parameter in counted)
        total = torch.tensor(here, dtype=torch.int64, device=self.groups.device)
        dist.all_reduce(total, group=self.groups.model_group)
        return int(total.item())

    def _to_train(self, micro_batches: Sequence[MicroBatch]) -> Iterator[MicroBatch]:
        """Micro-batches on the device, their weights times the factor of the loss."""
        for micro_batch in micro_batches:
            batch = micro_batch.to(self.groups.device)
            yield replace(batch, weights=batch.weights * self._loss_factor())

    def _to_evaluate(self, micro_batches: Sequence[MicroBatch]) -> Iterator[MicroBatch]:
        return (micro_batch.to(self.groups.device) for micro_batch in micro_batches)

    def _loss_factor(self) -> Tensor | float:
        """By how much a loss made of `_to_train` is too large: what DeepSpeed will divide by, times the loss scale.

        DeepSpeed averages over data-parallel ranks where we want the sum. Both factors, so that the scale means what it
        does elsewhere: that of a loss which is the mean over the rank's own targets. A target weighs scale x ranks /
        global targets: with 2**12, 64 ranks and 2**21 targets 1/8, and the gradient of a logit of probability 2**-18
        is 2**-21. Without the ranks it is 2**-27, below fp16's least number, 2**-24. Only activations' gradients are
        fp16; those of weights, which DeepSpeed sums and divides, are fp32 and have room for any number of ranks.
        """
        data = float(self.groups.layout.data)
        return data if self.loss_scale is None else data * self.loss_scale.scale

    def _sum_over_ranks(self, here: Tensor | None, divisor: Tensor | float, size: tuple[int, ...] = ()) -> Tensor:
        """The global batch's sums, of this size, from the last stage's ranks' own; tensor ranks have the same ones."""
        counts_here = self.groups.last_stage and self.groups.coordinates.tensor == 0 and here is not None
        total = torch.zeros(size, dtype=torch.float32, device=self.groups.device)
        if counts_here:
            assert here is not None
            total += here.detach().float() / divisor
        dist.all_reduce(total)
        return total

    def _tallies(self, means: Tensor, micro_batches: Sequence[MicroBatch]) -> dict[str, Tally]:
        """The means of `measures`, in their order, with what they are over; waits for the device."""
        pairs = zip(self.measures, means.tolist(), strict=True)
        return {name: Tally(mean, micro_batches[0].targets) for name, mean in pairs}


def find_placement(
    deepspeed: Any,
    parameters: dict[str, nn.Parameter],
    optimizer: Optimizer,
    groups: ProcessGroups,
    tied: Mapping[str, dist.ProcessGroup] | None = None,
    overlap: bool = False,
) -> OptimizerPlacement:
    """Where a started DeepSpeed engine has put gradients and optimizer state of these parameters.

    `tied` as in `place_optimizer`, `overlap` as in `FlatGradients`.
    """
    stage = deepspeed.zero_optimization_stage()
    if stage == 1:
        scatter = dist.get_backend(groups.data_group) == "nccl"
        FlatGradients(deepspeed.optimizer, scatter, overlap)
    return place_optimizer(stage, parameters, optimizer, deepspeed.optimizer, groups, tied)


def deepspeed_config(zero_stage: int, micro_batch_size: int, layout: Layout) -> dict[str, Any]:
    """What DeepSpeed is told.

    It sees no precision: weights come in their own type, gradients in fp32 (grad_dtype). It sees no accumulation
    either: the number of micro-batches may grow from step to step, and the engines say which is the last.
    """
    zero: dict[str, Any] = {"stage": zero_stage}
    if zero_stage in (1, 2):
        zero |= {"compute_grad_norm": False}  # stage 3 refuses the key: see deepspeed_patches/no_second_norm.py
    if zero_stage == 3:
        zero |= {"sub_group_size": 10**15}  # elements stepped at once: never less than a group of parameters
    if zero_stage > 0:
        zero |= {"overlap_comm": False, "contiguous_gradients": False}
        zero |= {"reduce_bucket_size": BUCKET_ELEMENTS, "allgather_bucket_size": BUCKET_ELEMENTS}
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        # stages 1 to 3 look at the type of the weights: of fp16 ones they would scale the loss by 65,536 on their own
        "fp16": {"enabled": False, "loss_scale": 1.0},
        "steps_per_print": None,
        # its timers would make the host wait for the GPU in every forward pass
        "timers": {"throughput": {"enabled": False}},
        "zero_allow_untested_optimizer": True,
        # Left on, a tensor rank sends the next stage its part of an activation that its peers hold too, and the parts
        # are put together there. Under sequence parallelism each holds other tokens: the whole of them must travel.
        "pipeline": dict.fromkeys(("pipe_partitioned", "grad_partitioned"), not layout.sequence_parallel),
        "zero_optimization": zero,
    }


def mixed_precision_optimizer(
    config: OptimizerConfig,
    parameters: dict[str, nn.Parameter],
    zero_stage: int,
    groups: ProcessGroups,
    tied: Collection[str] = (),
) -> Optimizer:
    """The optimizer for DeepSpeed to hold, of the parameters that are trained; other stages hold the `tied` too.

    ZeRO 1 and above make fp32 masters of their own, ZeRO 0 does not. Autograd is told to sum bf16 gradients in fp32:
    equal gradients of micro-batches stall in bf16 after 256 of them.
    """
    trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    for parameter in trained.values():
        parameter.grad_dtype = torch.float32
    optimizer = build_optimizer(config, trained, tied)
    return MasterWeights(optimizer) if zero_stage == 0 and groups.dtype != torch.float32 else optimizer
