"""An architecture is a list of layer specs; a plain module and a pipeline are both built from it.

A spec's name is the canonical prefix of its parameters on every layout: `layers.3` + `.attention.output.linear.weight`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

LayerForward = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class LayerSpec:
    """How to build one layer, or how to use again a layer built before."""

    name: str
    build: Callable[[], nn.Module]
    is_block: bool = False
    """a transformer block: pipeline stages share these evenly"""
    shared_weight: str | None = None
    """dotted name, within the layer, of the weight that other specs of the same name use too"""
    forward: LayerForward | None = None
    """how to run a shared layer in this place; None calls it"""
