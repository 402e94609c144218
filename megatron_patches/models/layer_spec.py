"""An architecture is a list of layer specs; a plain module and a pipeline are both built from it.

A spec's name is the canonical prefix of its parameters on every layout: `layers.3` + `.attention.output.linear.weight`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

LayerForward = Callable[..., Tensor]
"""(layer, hidden), and the `TokenContext` where the spec reads it"""


@dataclass(frozen=True)
class LayerSpec:
    """How to build one layer, or how to use again a layer built before."""

    name: str
    build: Callable[[], nn.Module]
    is_block: bool = False
    """a transformer block"""
    reads_context: bool = False
    """whether the layer is called with the `TokenContext` behind the stream"""
    shared_weight: str | None = None
    """dotted name, within the layer, of the weight that other specs of the same name use too"""
    forward: LayerForward | None = None
    """how to run a shared layer in this place; None calls it"""

    def run(self, layer: nn.Module, stream: Tensor, context: Any) -> Tensor:
        """The layer's output in this place."""
        inputs = (stream, context) if self.reads_context else (stream,)
        return self.forward(layer, *inputs) if self.forward else layer(*inputs)
