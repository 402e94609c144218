"""Muon (Jordan et al. 2024) on matrices of which each rank holds a stretch, and AdamW for what is no such matrix."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.adamw import adamw

from megatron_patches.optim.newton_schulz import orthogonalised
from megatron_patches.optim.optimizer_config import MuonConfig
from megatron_patches.optim.slices.fragment import Fragment
from megatron_patches.optim.slices.rectangles import Matrices, Rectangle, rectangles
from megatron_patches.optim.slices.sliced_optimizer import SlicedOptimizer, gradient_of
from megatron_patches.optim.slices.verdict import gradients_of, zero_where_left_out
from megatron_patches.parallel.process_groups import ProcessGroups

ELEMENTS_AT_ONCE = 2**28  # 1 GiB of fp32 on every rank; a larger parameter is assembled by itself


@dataclass(frozen=True)
class _Assembled:
    """A parameter's whole step, which one rank orthogonalises for all."""

    name: str
    group: dict[str, Any]
    owner: int
    """rank within the stage"""


class Muon(SlicedOptimizer):
    """Groups with `orthogonal` by Muon, matrix by matrix of fused ones; the others by torch's fused AdamW.

    A parameter's direction is added up on one rank of the stage, orthogonalised there and sent to all; as many
    parameters at once as there are ranks.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], config: MuonConfig, parameters: dict[str, nn.Parameter]
    ) -> None:
        super().__init__(groups, {"lr": config.learning_rate, "weight_decay": 0.0}, parameters)
        self.config = config
        self._matrices: dict[str, Matrices] = {}
        self._rectangles: dict[str, list[tuple[Fragment, Rectangle]]] = {}

    def bind(
        self, fragments: Sequence[Fragment], groups: ProcessGroups, tied: Mapping[str, dist.ProcessGroup] | None = None
    ) -> None:
        super().bind(fragments, groups, tied)
        for name in [name for group in self.param_groups if group["orthogonal"] for name in group["names"]]:
            self._matrices[name] = Matrices.of(self.infos[name])
            self._rectangles[name] = [(each, part) for each in self.fragments[name] for part in rectangles(each)]

    def zero_state(self, group: dict[str, Any], parameter: Tensor) -> dict[str, Tensor]:
        state = {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)}
        kinds = ("momentum_buffer",) if group["orthogonal"] else ("exp_avg", "exp_avg_sq")
        return state | {kind: torch.zeros_like(parameter) for kind in kinds}

    def _update(self, groups: list[dict[str, Any]], keep: Tensor) -> None:
        for group in groups:
            if not group["orthogonal"]:
                self._step_rest(group)
        orthogonal = [group for group in groups if group["orthogonal"]]
        for group in orthogonal:
            self._directions(group, keep)
        for batch in self._batches(orthogonal):
            for assembled, step in zip(batch, self._orthogonal_steps(batch), strict=True):
                self._apply(assembled, step, keep)

    def _step_rest(self, group: dict[str, Any]) -> None:
        tensors: list[Tensor] = group["params"]
        states = [self.state[tensor] for tensor in tensors]
        rest = self.config.rest
        adamw(
            tensors,
            gradients_of(tensors),
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            found_inf=getattr(self, "found_inf", None),
            amsgrad=False,
            beta1=rest.beta1,
            beta2=rest.beta2,
            lr=group["lr"] * rest.learning_rate / self.config.learning_rate,
            weight_decay=group["weight_decay"],
            eps=rest.epsilon,
            maximize=False,
        )

    def _directions(self, group: dict[str, Any], keep: Tensor) -> None:
        """Momentum, element by element; what is to be orthogonalised is left in the gradients' place."""
        momentum, tensors = self.config.momentum, group["params"]
        gradients = gradients_of(tensors)
        zero_where_left_out(gradients, keep)
        for tensor, gradient in zip(tensors, gradients, strict=True):
            velocity = self.state[tensor]["momentum_buffer"]
            velocity.lerp_(gradient, (1 - momentum) * keep)
            if self.config.nesterov:
                gradient.lerp_(velocity, momentum)
            else:
                gradient.copy_(velocity)
        torch._foreach_add_([self.state[tensor]["step"] for tensor in tensors], keep)

    def _batches(self, groups: list[dict[str, Any]]) -> Iterator[list[_Assembled]]:
        """Parameters that are assembled at the same time, each by another rank; the largest first."""
        ranks = dist.get_world_size(self.process_groups.stage_group)
        found = [(name, group) for group in groups for name in group["names"]]
        found.sort(key=lambda each: (-self._matrices[each[0]].elements, each[0]))
        batch: list[_Assembled] = []
        elements = 0
        for number, (name, group) in enumerate(found):
            more = self._matrices[name].elements
            if batch and (len(batch) == ranks or elements + more > ELEMENTS_AT_ONCE):
                yield batch
                batch, elements = [], 0
            batch.append(_Assembled(name, group, number % ranks))
            elements += more
        if batch:
            yield batch

    def _orthogonal_steps(self, batch: list[_Assembled]) -> list[Tensor]:
        """The whole step of each parameter, `[rows, columns]` fp32, on every rank."""
        group = self.process_groups.stage_group
        rank, alone = dist.get_rank(group), dist.get_world_size(group) == 1
        steps = [self._own_share(assembled.name) for assembled in batch]
        if not alone:
            sums = [
                dist.reduce(step, group_dst=assembled.owner, group=group, async_op=True)
                for assembled, step in zip(batch, steps, strict=True)
            ]
            for each in sums:
                each.wait()
        for assembled, step in zip(batch, steps, strict=True):
            if assembled.owner == rank:
                self._orthogonalise(assembled.name, step)
        if not alone:
            sent = [
                dist.broadcast(step, group_src=assembled.owner, group=group, async_op=True)
                for assembled, step in zip(batch, steps, strict=True)
            ]
            for each in sent:
                each.wait()
        return steps

    def _own_share(self, name: str) -> Tensor:
        """The counted elements of this rank in a whole matrix of zeros."""
        matrices = self._matrices[name]
        share = torch.zeros(matrices.rows, matrices.columns, device=self.process_groups.device)
        for fragment, part in self._rectangles[name]:
            if fragment.counted:
                part.within(share).copy_(part.of(gradient_of(fragment)))
        return share

    def _orthogonalise(self, name: str, step: Tensor) -> None:
        """Each matrix of a parameter by itself, scaled by its shape, in place."""
        matrices = self._matrices[name]
        rows, columns = matrices.rows_each, matrices.columns
        scale = sqrt(max(1, rows / columns)) if self.config.update_scale == "shape" else 0.2 * sqrt(max(rows, columns))
        by_matrix = matrices.by_matrix(step)
        for number in range(matrices.count):
            matrix = by_matrix[:, number].reshape(rows, columns)
            orthogonal = orthogonalised(matrix, self.config.newton_schulz_steps).to(step.dtype) * scale
            by_matrix[:, number].copy_(orthogonal.view_as(by_matrix[:, number]))

    def _apply(self, assembled: _Assembled, step: Tensor, keep: Tensor) -> None:
        group = assembled.group
        for fragment, part in self._rectangles[assembled.name]:
            values = part.of(fragment.tensor)
            if group["weight_decay"]:
                values.mul_(1 - group["lr"] * group["weight_decay"] * keep)
            values.addcmul_(part.within(step), group["lr"] * keep, value=-1)
