"""An architecture is a list of layer specs; a plain module and a pipeline are both built from it.

A spec's name is the canonical prefix of its parameters on every layout: `layers.3` + `.attention.output.linear.weight`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from megatron_patches.batch.fields import Field

LayerForward = Callable[..., Tensor]
"""(layer, the fields that the spec reads) -> the field that it writes"""

HIDDEN = Field("hidden", ("tokens", "batch", "hidden"), "float", gradient=True)
"""the residual stream"""
LOGITS = Field("logits", ("tokens", "batch", "vocabulary"), "float", gradient=True)
"""what the loss reads"""


@dataclass(frozen=True)
class LayerSpec:
    """How to build one layer, or how to use again a layer built before."""

    name: str
    build: Callable[[], nn.Module]
    reads: tuple[str, ...] = (HIDDEN.name,)
    """fields of the stream, in the order in which the layer takes them"""
    writes: Field = HIDDEN
    shared_weight: str | None = None
    """dotted name, within the layer, of the weight that other specs of the same name use too"""
    forward: LayerForward | None = None
    """how to run the layer in this place; None calls it"""

    def run(self, layer: nn.Module, fields: list[Tensor]) -> Tensor:
        """The layer's output in this place."""
        return self.forward(layer, *fields) if self.forward else layer(*fields)
