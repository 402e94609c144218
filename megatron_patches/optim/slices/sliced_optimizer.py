"""Optimizers that must know a whole matrix while each rank holds a stretch of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from megatron_patches.optim.slices.fragment import Fragment
from megatron_patches.optim.slices.verdict import gradients_of, keep_factor
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.parameters.info import ParameterInfo, info_of


class SlicedOptimizer(Optimizer, ABC):
    """Steps fragments; its result is the unsharded optimizer's, up to the order of fp32 sums.

    Every group of parameters has `names`, the canonical names of its parameters, the same on all ranks of a stage. A
    call of `step` updates all names of the groups that have tensors in `params`: DeepSpeed calls it once for each group
    under ZeRO, in the same order on all ranks, and then shows it this group alone.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], defaults: dict[str, Any], parameters: dict[str, nn.Parameter]
    ) -> None:
        super().__init__(groups, defaults)
        self.parameters = parameters
        self.infos: dict[str, ParameterInfo] = {name: info_of(parameter) for name, parameter in parameters.items()}
        self.fragments: dict[str, list[Fragment]] = {}
        self.process_groups: ProcessGroups
        self.tied: Mapping[str, dist.ProcessGroup] = {}

    def bind(
        self, fragments: Sequence[Fragment], groups: ProcessGroups, tied: Mapping[str, dist.ProcessGroup] | None = None
    ) -> None:
        """Learn what this rank steps; once, when tensors have their final places.

        The constructor cannot be told: DeepSpeed wants an optimizer to hold before it cuts the weights up, and what it
        makes of them are the fragments. `place_optimizer` binds, so whoever has a placement has a bound optimizer.

        Fragments without elements may be left out. `groups.stage_group` is where `Fragment.counted` counts.
        Of a parameter that several stages hold, `tied` has the group in which each of them has one rank, the first
        stage's first.
        """
        self.process_groups, self.tied = groups, tied or {}
        self.fragments = {name: [] for group in self.param_groups for name in group["names"]}
        for fragment in fragments:
            assert fragment.tensor.dtype == torch.float32 and fragment.tensor.is_contiguous()
            assert fragment.name in self.fragments, f"{fragment.name} is not in any group of parameters"
            self.fragments[fragment.name].append(fragment)
        self._check_counted()

    def _check_counted(self) -> None:
        """Sums over a stage are sums over its ranks' counted elements: a double or a missing one would be silent."""
        counted = [sum(each.elements for each in held if each.counted) for held in self.fragments.values()]
        found = torch.tensor(counted, dtype=torch.int64, device=self.process_groups.device)
        if dist.get_world_size(self.process_groups.stage_group) > 1:
            dist.all_reduce(found, group=self.process_groups.stage_group)
        for name, elements in zip(self.fragments, found.tolist(), strict=True):
            expected = prod(self.infos[name].slice.global_shape)
            assert elements == expected, f"{elements} of {expected} elements of {name} are counted on the stage's ranks"

    @abstractmethod
    def zero_state(self, group: dict[str, Any], parameter: Tensor) -> dict[str, Tensor]:
        """Elementwise state of one tensor before the first update, and its count of updates, `step`."""

    def state_pieces(self) -> list[StatePiece]:
        """State that is not elementwise, and so is not in `state`; what is there, is a fragment's as torch's is."""
        return []

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update; collective over a stage. It uses the gradients up: they hold other numbers afterwards."""
        assert closure is None, "a closure would need a forward pass inside the step"
        assert self.fragments, "bind comes first"
        groups = [group for group in self.param_groups if group["params"]]
        if groups:
            self._update(groups, keep_factor(self, self.process_groups.device))

    @abstractmethod
    def _update(self, groups: list[dict[str, Any]], keep: Tensor) -> None:
        """Update all names of these groups; where `keep` is 0 nothing changes."""


def gradient_of(fragment: Fragment) -> Tensor:
    """The gradient of a fragment's tensor, where the fragment's elements have the same places."""
    (gradient,) = gradients_of([fragment.tensor])
    return gradient


def elements_of(fragment: Fragment, tensor: Tensor) -> Tensor:
    """A fragment's elements as a flat view of its tensor, or of one laid out like it."""
    return tensor.detach().view(-1).narrow(0, fragment.offset, fragment.elements)
