"""torch.compile, one block at a time."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from megatron_patches.training.training_config import CompileBackend


class CompiledInParts(nn.Module, ABC):
    """A module whose `compute` does its work: a block of any architecture."""

    @abstractmethod
    def compute(self, *inputs: Any) -> Tensor:
        """What is compiled."""


def compile_blocks(model: nn.Module, backend: CompileBackend = "inductor", dynamic: bool = False) -> None:
    """Compile each block's computation in place; `dynamic` makes one graph for all shapes.

    One compilation serves all blocks of a rank: they share their code, and their weights are inputs of it. Alone
    (tensor 1) a block is one graph. Tensor-parallel ranks compile what lies between two matrices, since their
    messages are not compiled. Where segments of samples have calls of attention by their length, these are left out:
    the lengths change with every micro-batch. What repeats a block under full recomputation stays outside and calls
    it compiled.
    """
    for module in model.modules():
        if isinstance(module, CompiledInParts):
            leave_out(module)
            # A micro-batch's shape never changes within a run: unless asked for, no graph for any shape is tried.
            compiled = torch.compile(module.compute, backend=backend, dynamic=dynamic)
            module.compute = compiled  # type: ignore[method-assign]


def leave_out(block: nn.Module) -> None:
    """Keep what its modules name in `outside_graphs` out of graphs: each a method, with all that it calls.

    Done here, for the modules at hand, and not by a decorator where the methods are defined: that would import Dynamo,
    2.2 s of CPU time, on each rank of a run that compiles nothing.
    """
    for module in block.modules():
        for name in getattr(module, "outside_graphs", ()):
            setattr(module, name, torch.compiler.disable(getattr(module, name)))
