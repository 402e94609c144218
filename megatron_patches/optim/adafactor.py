"""Adafactor (Shazeer and Stern 2018) on parameters of which each rank holds a stretch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megatron_patches.optim.optimizer_config import AdafactorConfig
from megatron_patches.optim.slices.fragment import Fragment
from megatron_patches.optim.slices.rectangles import Matrices, Rectangle, rectangles
from megatron_patches.optim.slices.sliced_optimizer import SlicedOptimizer, elements_of, gradient_of
from megatron_patches.optim.slices.verdict import gradients_of, zero_where_left_out
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.parameters.info import is_first_stages
from megatron_patches.parameters.tensor_slice import TensorSlice


@dataclass(frozen=True)
class _Factored:
    """What the ranks know of one parameter's second moments: a mean for every row and every column, fp32."""

    matrices: Matrices
    rows: Tensor
    """`[rows]`, over the columns"""
    columns: Tensor
    """`[matrices, columns]`, over the rows of each matrix"""


@dataclass(frozen=True)
class _Sums:
    """Sums over a whole parameter, as views of the buffer that the ranks reduce together."""

    rows: Tensor
    """squared gradients, `[rows]`; empty for a vector"""
    columns: Tensor
    """squared gradients, `[matrices, columns]`; empty for a vector"""
    parameter: Tensor
    """squared elements, `[1]`"""


class Adafactor(SlicedOptimizer):
    """Factored second moments for groups with `factored`, one for each element in the others.

    Two all-reduces a call of `step`: sums over rows and columns of squared gradients, then the squares of the updates.
    Each is followed by a broadcast between the stages that hold a tied parameter.
    Row and column moments are whole on every rank: a matrix of n x m has n + m of them.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], config: AdafactorConfig, parameters: dict[str, nn.Parameter]
    ) -> None:
        super().__init__(groups, {"lr": config.learning_rate, "weight_decay": 0.0}, parameters)
        self.config = config
        self._factored: dict[str, _Factored] = {}
        self._rectangles: dict[str, list[tuple[Fragment, Rectangle]]] = {}
        self._elements: dict[str, Tensor] = {}
        """of the whole parameter, `[1]`, on the device: a copy to it in every step would make the host wait"""

    def bind(
        self, fragments: Sequence[Fragment], groups: ProcessGroups, tied: Mapping[str, dist.ProcessGroup] | None = None
    ) -> None:
        super().bind(fragments, groups, tied)
        device = groups.device
        elements = torch.tensor([prod(self.infos[name].slice.global_shape) for name in self.fragments], device=device)
        self._elements = dict(zip(self.fragments, elements.split(1), strict=True))
        for name in [name for group in self.param_groups if group["factored"] for name in group["names"]]:
            matrices = Matrices.of(self.infos[name])
            rows = torch.zeros(matrices.rows, device=device)
            columns = torch.zeros(matrices.count, matrices.columns, device=device)
            self._factored[name] = _Factored(matrices, rows, columns)
            self._rectangles[name] = [(each, part) for each in self.fragments[name] for part in rectangles(each)]

    def zero_state(self, group: dict[str, Any], parameter: Tensor) -> dict[str, Tensor]:
        step = {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)}
        return step if group["factored"] else step | {"second_moment": torch.zeros_like(parameter)}

    def state_pieces(self) -> list[StatePiece]:
        """Row and column moments; the ranks of a stage take turns in writing them."""
        rank, size = (each(self.process_groups.stage_group) for each in (dist.get_rank, dist.get_world_size))
        pieces = []
        for number, (name, moments) in enumerate(self._factored.items()):
            written = number % size == rank and is_first_stages(self.parameters[name])
            for kind, moment in (("second_moment_rows", moments.rows), ("second_moment_columns", moments.columns)):
                box = TensorSlice.whole(tuple(moment.shape))
                pieces.append(StatePiece(name, kind, box, 0, moment.view(-1), written))
        return pieces

    def _update(self, groups: list[dict[str, Any]], keep: Tensor) -> None:
        gradients = [gradient for group in groups for gradient in gradients_of(group["params"])]
        zero_where_left_out(gradients, keep)
        sums = self._sums(groups)
        for group in groups:
            # 1 - decay of section 7.2; updates count from 1
            weight = (self._step_of(group) + 1) ** -self.config.decay_exponent * keep
            for name in group["names"]:
                if group["factored"]:
                    self._divide_by_factors(name, sums[name], weight)
                else:
                    self._divide_by_moments(name, weight)
        zero_where_left_out(gradients, keep)  # moments that are still zero made NaN of an update that is left out
        self._apply(groups, sums, keep)
        for group in groups:
            torch._foreach_add_([self.state[tensor]["step"] for tensor in group["params"]], keep)

    def _step_of(self, group: dict[str, Any]) -> Tensor:
        return self.state[group["params"][0]]["step"]

    def _sums(self, groups: list[dict[str, Any]]) -> dict[str, _Sums]:
        """What the ranks' counted elements add up to, by name of the parameter."""
        sizes: dict[str, tuple[int, int, int]] = {}
        for name in [name for group in groups for name in group["names"]]:
            moments = self._factored.get(name)
            sizes[name] = (moments.rows.numel(), moments.columns.numel(), 1) if moments else (0, 0, 1)
        packed = torch.zeros(sum(map(sum, sizes.values())), device=self.process_groups.device)
        parts = iter(packed.split([size for each in sizes.values() for size in each]))
        found: dict[str, _Sums] = {}
        for name in sizes:
            rows, columns, parameter = (next(parts) for _ in range(3))
            if name in self._factored:
                columns = columns.view_as(self._factored[name].columns)
                self._add_squared_gradients(name, rows, columns)
            if self.config.scale_by_parameter:
                for fragment in self._counted(name):
                    parameter += elements_of(fragment, fragment.tensor).square().sum()
            found[name] = _Sums(rows, columns, parameter)
        self._all_reduce(packed, dict(zip(sizes, packed.split([sum(each) for each in sizes.values()]), strict=True)))
        return found

    def _add_squared_gradients(self, name: str, rows: Tensor, columns: Tensor) -> None:
        matrices = self._factored[name].matrices
        for fragment, part in self._rectangles[name]:
            if not fragment.counted:
                continue
            squares = part.of(gradient_of(fragment)).square()
            rows[slice(*part.rows)] += squares.sum(dim=1)
            if matrices.count == 1:
                columns[0, slice(*part.columns)] += squares.sum(dim=0)
                continue
            of_rows = matrices.matrix_of_rows(*part.rows, squares.device)
            for matrix in range(matrices.count):
                # a product with 0 or 1, not index_add: its order of sums on a GPU is another one every time
                chosen = (of_rows == matrix).to(squares.dtype).unsqueeze(1)
                columns[matrix, slice(*part.columns)] += (squares * chosen).sum(dim=0)

    def _divide_by_factors(self, name: str, sums: _Sums, weight: Tensor) -> None:
        """Section 3, algorithm 2: the gradient over the root of rows x columns / mean, in the gradient's place."""
        moments, epsilon = self._factored[name], self.config.epsilon
        matrices = moments.matrices
        moments.rows.lerp_(sums.rows / matrices.columns + epsilon, weight)
        moments.columns.lerp_(sums.columns / matrices.rows_each + epsilon, weight)

        by_matrix = matrices.by_matrix(moments.rows)
        row_factors = (by_matrix / by_matrix.mean(dim=(0, 2), keepdim=True)).rsqrt().view(-1, 1)
        column_factors = moments.columns.rsqrt()
        for fragment, part in self._rectangles[name]:
            update = part.of(gradient_of(fragment))
            update.mul_(row_factors[slice(*part.rows)])
            factors = column_factors[:, slice(*part.columns)]
            if matrices.count > 1:
                factors = factors[matrices.matrix_of_rows(*part.rows, update.device)]
            update.mul_(factors)

    def _divide_by_moments(self, name: str, weight: Tensor) -> None:
        """Section 3, algorithm 5: a vector's moments are kept whole."""
        for fragment in self.fragments[name]:
            gradient = elements_of(fragment, gradient_of(fragment))
            moment = elements_of(fragment, self.state[fragment.tensor]["second_moment"])
            moment.lerp_(gradient.square() + self.config.epsilon, weight)
            gradient.mul_(moment.rsqrt())

    def _apply(self, groups: list[dict[str, Any]], sums: dict[str, _Sums], keep: Tensor) -> None:
        """Sections 6 and 8: updates limited by their root mean square, scaled by the parameter's."""
        squares = torch.zeros(len(sums), device=self.process_groups.device)
        for number, name in enumerate(sums):
            for fragment in self._counted(name):
                squares[number] += elements_of(fragment, gradient_of(fragment)).square().sum()
        self._all_reduce(squares, dict(zip(sums, squares.split(1), strict=True)))

        elements = torch.cat([self._elements[name] for name in sums])
        shrink = ((squares / elements).sqrt() / self.config.update_clip).clamp(min=1.0)
        scale = keep.expand_as(squares)
        if self.config.scale_by_parameter:
            whole = torch.cat([each.parameter for each in sums.values()])
            scale = (whole / elements).sqrt().clamp(min=self.config.scale_floor) * keep
        index = {name: number for number, name in enumerate(sums)}
        for group in groups:
            for name in group["names"]:
                rate = group["lr"] * scale[index[name]]
                for fragment in self.fragments[name]:
                    values = elements_of(fragment, fragment.tensor)
                    if group["weight_decay"]:
                        values.mul_(1 - group["weight_decay"] * rate)
                    update = elements_of(fragment, gradient_of(fragment))
                    values.addcmul_(update, rate / shrink[index[name]], value=-1)

    def _counted(self, name: str) -> list[Fragment]:
        return [fragment for fragment in self.fragments[name] if fragment.counted]

    def _all_reduce(self, sums: Tensor, parts: Mapping[str, Tensor]) -> None:
        """Sum over the stage; `parts` are the parameters' own, as views.

        Of a tied parameter all stages take the first one's: each has cut it elsewhere, and a sum of other stretches is
        another one in its last bit. The copies would drift apart, and nothing brings them together again. Stages have
        several tied ones in orders of their own: they go by name, or two stages would each wait for the other.
        """
        if dist.get_world_size(self.process_groups.stage_group) > 1:
            dist.all_reduce(sums, group=self.process_groups.stage_group)
        for name in sorted(parts.keys() & self.tied.keys()):
            dist.broadcast(parts[name], group_src=0, group=self.tied[name])
