"""A stretch of one tensor of the training state, as engine, optimizers and checkpoints hand it to each other."""

from dataclasses import dataclass

from torch import Tensor

from megatron_patches.parameters.tensor_slice import TensorSlice


@dataclass(frozen=True)
class StatePiece:
    """A stretch of one tensor of the training state that this rank holds.

    `tensor` is a live, contiguous, one-dimensional view: elements `start ... start + len(tensor)` of the box that
    `slice` describes, in row-major order.
    """

    name: str
    """canonical name of the parameter"""
    kind: str
    """weight, master, or the optimizer's own name for a moment (exp_avg, exp_avg_sq, momentum_buffer)"""
    slice: TensorSlice
    start: int
    tensor: Tensor
    written_here: bool
    """whether this rank writes it to a checkpoint; of every element exactly one rank does"""
