"""Where DeepSpeed keeps a rank's gradients, masters and moments, under ZeRO 0 and under ZeRO 1."""

from abc import ABC, abstractmethod
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from megatron_patches.engine.interface import StatePiece
from megatron_patches.optim.master_weights import MasterWeights
from megatron_patches.parallel.parameters import info_of
from megatron_patches.parallel.process_groups import ProcessGroups


class OptimizerPlacement(ABC):
    """Gradients and training state of this rank, whatever the ZeRO stage."""

    norm_group: dist.ProcessGroup | None
    """ranks whose counted gradients together are the model's gradient, each element once; None is all ranks"""

    def __init__(self, parameters: dict[str, nn.Parameter], counted: set[str], groups: ProcessGroups) -> None:
        self.parameters = parameters
        self.counted = counted
        self.groups = groups

    @abstractmethod
    def gradients(self) -> list[Tensor]:
        """What the next update reads, to be clipped in place."""

    @abstractmethod
    def counted_gradients(self) -> list[Tensor]:
        """The part of `gradients` that this rank speaks for in the norm."""

    @abstractmethod
    def pieces(self) -> list[StatePiece]:
        """See Engine.state."""

    def _weights(self) -> list[StatePiece]:
        """Every data-parallel rank holds all weights; they take turns in writing them."""
        pieces = []
        for number, (name, parameter) in enumerate(self.parameters.items()):
            turn = number % self.groups.layout.data == self.groups.coordinates.data
            flat = parameter.detach().view(-1)
            pieces.append(StatePiece(name, "weight", info_of(parameter).slice, 0, flat, turn and name in self.counted))
        return pieces


class FullState(OptimizerPlacement):
    """ZeRO 0: every data-parallel rank holds all of it."""

    def __init__(
        self, parameters: dict[str, nn.Parameter], counted: set[str], optimizer: Optimizer, groups: ProcessGroups
    ) -> None:
        super().__init__(parameters, counted, groups)
        self.optimizer = optimizer
        self.norm_group = groups.model_group

    def gradients(self) -> list[Tensor]:
        return [_present(parameter.grad) for parameter in self.parameters.values()]

    def counted_gradients(self) -> list[Tensor]:
        return [_present(parameter.grad) for name, parameter in self.parameters.items() if name in self.counted]

    def pieces(self) -> list[StatePiece]:
        masters = self.optimizer.masters if isinstance(self.optimizer, MasterWeights) else None
        pieces = []
        for weight in self._weights():
            parameter = self.parameters[weight.name]
            pieces.append(weight)
            stepped = masters[parameter] if masters else parameter
            held = {"master": stepped.detach()} if masters else {}
            held |= _moments(self.optimizer, stepped)
            pieces += [
                StatePiece(weight.name, kind, weight.slice, 0, tensor.view(-1), weight.written_here)
                for kind, tensor in held.items()
            ]
        return pieces


class PartitionedState(OptimizerPlacement):
    """ZeRO 1: masters, moments and the gradients they need are cut evenly between data-parallel ranks."""

    def __init__(
        self, parameters: dict[str, nn.Parameter], counted: set[str], zero: Any, groups: ProcessGroups
    ) -> None:
        super().__init__(parameters, counted, groups)
        self.zero = zero
        self.norm_group = None
        self._names = {id(parameter): name for name, parameter in parameters.items()}

    def gradients(self) -> list[Tensor]:
        return [gradient for group in self.zero.averaged_gradients.values() for gradient in group]

    def counted_gradients(self) -> list[Tensor]:
        found = []
        for index, group in self.zero.averaged_gradients.items():
            real = (gradient for gradient in group if not getattr(gradient, "_zero_padding", False))
            for parameter, gradient in zip(self.zero.params_in_partition[index], real, strict=True):
                if self._names[id(parameter)] in self.counted:
                    found.append(gradient)
        return found

    def pieces(self) -> list[StatePiece]:
        pieces = self._weights()
        for index, group in enumerate(self.zero.bit16_groups):
            partition = self.zero.single_partition_of_fp32_groups[index]
            for parameter in group:
                if parameter._hp_mapping is not None:
                    pieces += self._partitioned_pieces(parameter, partition)
        return pieces

    def _partitioned_pieces(self, parameter: nn.Parameter, partition: Tensor) -> list[StatePiece]:
        name, mapping = self._names[id(parameter)], parameter._hp_mapping  # type: ignore[attr-defined]
        inside, start = mapping.get_hp_fragment_address(), mapping.lp_fragment_address.start
        held = {"master": partition.detach()} | _moments(self.zero.optimizer, partition)
        is_rounded = parameter.dtype != partition.dtype
        return [
            StatePiece(
                name, kind, info_of(parameter).slice, start, tensor.narrow(0, inside.start, inside.numel),
                written_here=name in self.counted and (kind != "master" or is_rounded),
            )
            for kind, tensor in held.items()
        ]  # fmt: skip


def _moments(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    return {kind: value for kind, value in optimizer.state[parameter].items() if kind != "step"}


def _present(gradient: Tensor | None) -> Tensor:
    assert gradient is not None, "a parameter has no gradient after the backward pass"
    return gradient
