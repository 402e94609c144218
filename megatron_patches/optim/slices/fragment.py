"""What of a parameter an optimizer steps on this rank: a whole box, or a flat stretch of it under ZeRO."""

from dataclasses import dataclass

from torch import Tensor

from megatron_patches.parameters.info import ParameterInfo


@dataclass(frozen=True)
class Fragment:
    """Elements `start ... start + elements` (row-major) of the box that `info.slice` describes.

    They are the elements from `offset` on of `tensor`, flattened. `tensor` is one of the optimizer's own (a key of its
    state): the parameter itself or its fp32 master, or under ZeRO a flat tensor with stretches of many parameters.
    """

    name: str
    """canonical name of the parameter"""
    info: ParameterInfo
    tensor: Tensor
    offset: int
    start: int
    elements: int
    counted: bool
    """whether this rank's copy counts in sums over the ranks of a stage; of every element exactly one rank's does"""
