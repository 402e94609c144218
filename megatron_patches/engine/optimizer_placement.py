"""Where DeepSpeed keeps a rank's gradients, masters, moments and weights, under each ZeRO stage."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from megatron_patches.optim.build import allocate_state
from megatron_patches.optim.master_weights import MasterWeights
from megatron_patches.optim.slices.fragment import Fragment
from megatron_patches.optim.slices.sliced_optimizer import SlicedOptimizer
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.parameters.info import info_of, is_first_stages


class OptimizerPlacement(ABC):
    """Gradients and training state of this rank, whatever the ZeRO stage.

    `parameters` are all that this pipeline stage holds, by canonical name; those that need no gradient are frozen: they
    have weights and nothing else.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], optimizer: Optimizer, groups: ProcessGroups) -> None:
        self.parameters = parameters
        self.optimizer = optimizer.inner if isinstance(optimizer, MasterWeights) else optimizer
        self.groups = groups
        self.names = {id(parameter): name for name, parameter in parameters.items()}
        self.owned = {name for name, parameter in parameters.items() if is_counted_here(parameter, groups)}
        """parameters that this rank's tensor-parallel coordinate and stage count, of those that others hold too"""
        self.first_copies = {name for name, parameter in parameters.items() if is_first_copy(parameter, groups)}
        """the same within a stage: an optimizer's sums over a tied parameter are each stage's own"""

    @abstractmethod
    def fragments(self) -> list[Fragment]:
        """What the optimizer steps on this rank, in an order that stays; tensor-parallel peers have the same order."""

    @abstractmethod
    def gradients(self) -> list[Tensor]:
        """Of each fragment the gradient that the next update reads, of any shape; to be changed in place."""

    @abstractmethod
    def weights(self) -> list[StatePiece]:
        """Weights of all parameters, frozen ones too."""

    def stepped_tensors(self) -> list[list[Tensor]]:
        """The optimizer's own tensors, for each of its groups."""
        return [group["params"] for group in self.optimizer.param_groups]

    def counted_gradients(self) -> list[Tensor]:
        """The part of `gradients` that counts on this rank; over all ranks they are the model's gradient, once."""
        pairs = self._fragments_and_gradients()
        return [gradient for fragment, gradient in pairs if fragment.counted and fragment.name in self.owned]

    def sum_partial_gradients(self) -> None:
        """Add up what tensor-parallel ranks have each computed a part of, in one message.

        Local shapes are equal on tensor-parallel peers, so their fragments of a parameter are the same elements.
        """
        if self.groups.layout.tensor == 1:
            return
        parts = [gradient for fragment, gradient in self._fragments_and_gradients() if fragment.info.partial_gradient]
        if parts:
            flat = torch.cat([part.reshape(-1) for part in parts])
            dist.all_reduce(flat, group=self.groups.tensor_group)
            sums = flat.split([part.numel() for part in parts])
            torch._foreach_copy_(parts, [each.view_as(part) for each, part in zip(sums, parts, strict=True)])

    def pieces(self) -> list[StatePiece]:
        """See Engine.state."""
        pieces, turns = self.weights(), self._turns()
        for fragment in self.fragments():
            is_written = turns[fragment.name]
            parameter = self.parameters[fragment.name]
            if fragment.tensor is not parameter:
                is_rounded = parameter.dtype != fragment.tensor.dtype
                pieces.append(_piece(fragment, "master", fragment.tensor.detach(), is_written and is_rounded))
            for kind, value in self.optimizer.state[fragment.tensor].items():
                if value.shape == fragment.tensor.shape:
                    pieces.append(_piece(fragment, kind, value, is_written))
        return [*pieces, *self.optimizer.state_pieces()] if isinstance(self.optimizer, SlicedOptimizer) else pieces

    def _turns(self) -> dict[str, bool]:
        """Whether this rank writes its fragments of a parameter: here, each rank holds others than its data peers."""
        return {name: name in self.owned for name in self.parameters}

    def _taking_turns(self) -> dict[str, bool]:
        """Whether this rank writes a parameter that all its data-parallel peers hold: they take turns."""
        data, here = self.groups.layout.data, self.groups.coordinates.data
        return {name: number % data == here and name in self.owned for number, name in enumerate(self.parameters)}

    def _whole_weights(self) -> list[StatePiece]:
        turns = self._taking_turns()
        return [
            StatePiece(name, "weight", info_of(parameter).slice, 0, parameter.detach().view(-1), turns[name])
            for name, parameter in self.parameters.items()
        ]

    def _fragments_and_gradients(self) -> Iterator[tuple[Fragment, Tensor]]:
        return zip(self.fragments(), self.gradients(), strict=True)


class FullState(OptimizerPlacement):
    """ZeRO 0: every data-parallel rank holds all of it."""

    def __init__(self, parameters: dict[str, nn.Parameter], optimizer: Optimizer, groups: ProcessGroups) -> None:
        super().__init__(parameters, optimizer, groups)
        masters = optimizer.masters if isinstance(optimizer, MasterWeights) else {}
        # in the optimizer's order, as under the other stages: the squares of the norm then add up to the same last bit
        names = [name for group in self.optimizer.param_groups for name in group["names"]]
        self._trained = {name: parameters[name] for name in names}
        first = groups.coordinates.data == 0
        self._fragments = [
            Fragment(
                name, info_of(parameter), masters.get(parameter, parameter), offset=0, start=0,
                elements=parameter.numel(), counted=first and name in self.first_copies,
            )
            for name, parameter in self._trained.items()
        ]  # fmt: skip

    def fragments(self) -> list[Fragment]:
        return self._fragments

    def gradients(self) -> list[Tensor]:
        return [_present(parameter.grad) for parameter in self._trained.values()]

    def weights(self) -> list[StatePiece]:
        return self._whole_weights()

    def _turns(self) -> dict[str, bool]:
        return self._taking_turns()


class PartitionedGradients(OptimizerPlacement):
    """ZeRO 1 and 2: masters, moments and the gradients they need are cut evenly between data-parallel ranks."""

    def __init__(
        self, parameters: dict[str, nn.Parameter], optimizer: Optimizer, zero: Any, groups: ProcessGroups
    ) -> None:
        super().__init__(parameters, optimizer, groups)
        self.zero = zero
        self._fragments = [
            self._fragment(parameter, zero.single_partition_of_fp32_groups[index])
            for index, group in enumerate(zero.params_in_partition)
            for parameter in group
        ]

    def fragments(self) -> list[Fragment]:
        return self._fragments

    def gradients(self) -> list[Tensor]:
        found: list[Tensor] = []
        for index, group in enumerate(self.zero.params_in_partition):
            # what lies between and behind the parameters only fills the partition up
            real = [each for each in self.zero.averaged_gradients[index] if not getattr(each, "_zero_padding", False)]
            found += real[: len(group)]
        return found

    def weights(self) -> list[StatePiece]:
        return self._whole_weights()

    def _fragment(self, parameter: nn.Parameter, partition: Tensor) -> Fragment:
        name, mapping = self.names[id(parameter)], parameter._hp_mapping  # type: ignore[attr-defined]
        inside = mapping.get_hp_fragment_address()
        return Fragment(
            name, info_of(parameter), partition, offset=inside.start, start=mapping.lp_fragment_address.start,
            elements=inside.numel, counted=name in self.first_copies,
        )  # fmt: skip


class PartitionedWeights(OptimizerPlacement):
    """ZeRO 3: of every flattened parameter each data-parallel rank holds an equal share, the last ones less or none."""

    def __init__(
        self, parameters: dict[str, nn.Parameter], optimizer: Optimizer, zero: Any, groups: ProcessGroups
    ) -> None:
        super().__init__(parameters, optimizer, groups)
        self.zero = zero
        assert len(zero.fp16_groups) == len(self.optimizer.param_groups), "a group of parameters is stepped in parts"
        self._fragments: list[Fragment] = []
        for partition, group in zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True):
            for parameter in group:
                name, (start, elements) = self.names[id(parameter)], self._share(parameter)
                offset = zero.grad_position[zero.get_param_id(parameter)][1]
                if elements:
                    self._fragments.append(
                        Fragment(
                            name,
                            info_of(parameter),
                            partition,
                            offset,
                            start,
                            elements,
                            counted=name in self.first_copies,
                        )
                    )

    def fragments(self) -> list[Fragment]:
        return self._fragments

    def gradients(self) -> list[Tensor]:
        found = []
        for index, group in enumerate(self.zero.fp16_groups):
            for parameter, gradient in zip(group, self.zero.averaged_gradients[index], strict=True):
                if elements := self._share(parameter)[1]:
                    found.append(gradient.narrow(0, 0, elements))
        return found

    def weights(self) -> list[StatePiece]:
        """Shares of the weights.

        DeepSpeed keeps small parameters whole between steps, beside their shares. They are let go of here, so that the
        next forward pass gathers what was written to the shares.
        """
        for parameter in self.zero.persistent_parameters:
            parameter.partition()
        pieces = []
        for name, parameter in self.parameters.items():
            start, elements = self._share(parameter)
            if elements:
                flat = parameter.ds_tensor.detach().view(-1)[:elements]  # type: ignore[attr-defined]
                pieces.append(StatePiece(name, "weight", info_of(parameter).slice, start, flat, name in self.owned))
        return pieces

    def stepped_tensors(self) -> list[list[Tensor]]:
        # DeepSpeed shows the optimizer one tensor at a time, and none between the steps
        return [[tensor] for tensor in self.zero.fp32_partitioned_groups_flat]

    def _share(self, parameter: nn.Parameter) -> tuple[int, int]:
        """First element of this rank's share of a parameter, and how many there are."""
        size = parameter.partition_numel()  # type: ignore[attr-defined]
        whole = info_of(parameter).slice.elements
        start = min(size * self.groups.coordinates.data, whole)
        return start, min(size, whole - start)


def place_optimizer(
    zero_stage: int,
    parameters: dict[str, nn.Parameter],
    optimizer: Optimizer,
    zero: Any,
    groups: ProcessGroups,
    tied: Mapping[str, dist.ProcessGroup] | None = None,
) -> OptimizerPlacement:
    """Where things are; the optimizer learns what it steps, and has its moments from then on.

    `zero` is DeepSpeed's optimizer around `optimizer`, unused under ZeRO 0. Of a parameter that several stages hold,
    `tied` has the group in which each of them has one rank, the first stage's first.
    """
    placement: OptimizerPlacement
    if zero_stage == 0:
        placement = FullState(parameters, optimizer, groups)
    else:
        kind = PartitionedWeights if zero_stage == 3 else PartitionedGradients
        placement = kind(parameters, optimizer, zero, groups)
    if isinstance(placement.optimizer, SlicedOptimizer):
        placement.optimizer.bind(placement.fragments(), groups, tied)
    allocate_state(placement.optimizer, placement.stepped_tensors())
    return placement


def is_counted_here(parameter: nn.Parameter, groups: ProcessGroups) -> bool:
    """Whether this rank counts a parameter: one tensor rank of a replicated one, one stage of a tied one."""
    return is_first_copy(parameter, groups) and is_first_stages(parameter)


def is_first_copy(parameter: nn.Parameter, groups: ProcessGroups) -> bool:
    """Whether this tensor rank counts a parameter on its stage."""
    return groups.coordinates.tensor == 0 or not info_of(parameter).tensor_replicated


def _piece(fragment: Fragment, kind: str, tensor: Tensor, written_here: bool) -> StatePiece:
    flat = tensor.view(-1).narrow(0, fragment.offset, fragment.elements)
    return StatePiece(fragment.name, kind, fragment.info.slice, fragment.start, flat, written_here)


def _present(gradient: Tensor | None) -> Tensor:
    assert gradient is not None, "a parameter has no gradient after the backward pass"
    return gradient
