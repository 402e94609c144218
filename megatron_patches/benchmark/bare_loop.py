"""The loop that a run is compared with: as one writes it in PyTorch, over the same modules, without DeepSpeed.

It has less to do than a real one: its batches lie in memory, it writes nothing, it reads no loss before the end.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megatron_patches.batch.micro_batch import MicroBatch
from megatron_patches.benchmark.bare_pipeline import BarePipeline
from megatron_patches.engine.build import blueprint_of, compiles
from megatron_patches.engine.deepspeed_engine import mixed_precision_optimizer
from megatron_patches.engine.optimizer_placement import place_optimizer
from megatron_patches.models.build import PlainModel, canonical_parameters
from megatron_patches.models.layers.compilation import compile_blocks
from megatron_patches.objectives.loss import build_loss
from megatron_patches.optim.build import select_trainable
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.randomness import StepRandomness
from megatron_patches.run.config import RunConfig


class BareLoop:
    """Forward, loss, backward, clip, step, on the run's own tensor, pipeline and data parallelism.

    What ranks must sum they sum in one message each: gradients over data-parallel ranks, a tied table's over its
    stages, partial ones over tensor-parallel ranks, squares of the norm over all.
    """

    def __init__(self, config: RunConfig, groups: ProcessGroups, batches: list[list[MicroBatch]]) -> None:
        self._config, self._groups, self._batches = config, groups, batches
        self._randomness = StepRandomness(config.training.seed, groups.coordinates, groups.device)
        blueprint = blueprint_of(config, groups, self._randomness)
        self._draws = config.model.draws
        self._loss = build_loss(config.objective, groups)
        self._pipeline: BarePipeline | None = None
        if groups.layout.pipeline > 1:
            self._pipeline = BarePipeline(config, blueprint, self._loss)
            self._model: nn.Module = self._pipeline.module
        else:
            self._model = PlainModel(blueprint).to(groups.device)
        parameters = canonical_parameters(self._model)
        select_trainable(config.training, parameters)
        if compiles(config, groups):
            compile_blocks(self._model, config.training.compile_backend, config.training.compile_dynamic)
        self._trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
        self._optimizer = mixed_precision_optimizer(config.optimizer, parameters, 0, groups)
        tied = self._pipeline.tied(parameters) if self._pipeline else None
        self._placement = place_optimizer(0, parameters, self._optimizer, None, groups, tied)
        self._losses: list[Tensor] = []

    def step(self) -> None:
        """One optimizer step."""
        config, step = self._config, len(self._losses) + 1
        if self._draws:
            self._randomness.start_step(step)  # the same draws as ours, so that the losses can be compared
        batches = [batch.to(self._groups.device) for batch in self._batches[step - 1]]
        if self._pipeline is not None:
            self._losses.append(self._pipeline.forward_backward(batches))
        else:
            self._losses.append(torch.stack([self._backward(batch) for batch in batches]).sum())
        self._sum_gradients()
        self._clip(config.optimizer.gradient_clip)
        rate = config.learning_rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        # Last, as in ours: gradients kept between turns are memory that the other side has to do without. At 10M
        # parameters it then grew the heap and gave it back in each of its turns: 20,000 page faults, 3 % of a step.
        self._model.zero_grad(set_to_none=True)  # of the module: MasterWeights would forget its copies' alone

    def _backward(self, batch: MicroBatch) -> Tensor:
        loss = self._loss(self._model(batch.inputs), (batch.labels, batch.weights))
        loss.backward()
        return loss.detach()

    def _sum_gradients(self) -> None:
        if self._groups.layout.data > 1:
            flat = torch.cat([_gradient(parameter).view(-1) for parameter in self._trained])
            dist.all_reduce(flat, group=self._groups.data_group)
            parts = flat.split([parameter.numel() for parameter in self._trained])
            for parameter, part in zip(self._trained, parts, strict=True):
                _gradient(parameter).copy_(part.view_as(parameter))
        self._placement.sum_partial_gradients()

    def _clip(self, bound: float) -> None:
        if bound <= 0:
            return
        if self._groups.layout.world_size == 1:
            torch.nn.utils.clip_grad_norm_(self._trained, bound)
            return
        counted = self._placement.counted_gradients()
        squares = torch.zeros((), device=self._groups.device)
        if counted:
            squares += torch.stack(torch._foreach_norm(counted)).square().sum()
        dist.all_reduce(squares)
        factor = (bound / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_([_gradient(parameter) for parameter in self._trained], factor)

    def losses(self) -> list[float]:
        """Losses of all steps so far, summed over data-parallel ranks and told by the last stage."""
        losses = torch.stack(self._losses)
        if self._groups.layout.world_size > 1:
            if not (self._groups.last_stage and self._groups.coordinates.tensor == 0):
                losses = torch.zeros_like(losses)
            dist.all_reduce(losses)
        return losses.tolist()


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "a parameter has no gradient after the backward pass"
    return parameter.grad
