"""The stream between a model's layers: which declared fields are still needed there, and in which order they are sent.

DeepSpeed's pipeline (0.19.8) sends tuples of tensors and knows them by their places alone. It reuses the buffers of a
place whatever their type: with a float first at one boundary of a stage and an integer first at the other, gradients
were wrong by 18 orders of magnitude, without an error. For each of several floats it goes through a stage's blocks
again. So at each boundary there is one float, in the first place; integers follow in the order of their declaration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from megatron_patches.batch.fields import Field, ModelInputs

Stream = Tensor | tuple[Tensor, ...]
"""one tensor where there is one field, else a tuple"""


class Passes(Protocol):
    """What a layer reads of the stream and what it writes to it."""

    @property
    def name(self) -> str: ...

    @property
    def reads(self) -> tuple[str, ...]: ...

    @property
    def writes(self) -> Field: ...


@dataclass(frozen=True)
class Boundary:
    """The fields between two layers, in their places."""

    names: tuple[str, ...]

    def pack(self, tensors: Mapping[str, Tensor]) -> Stream:
        """What is sent of these tensors; others are left behind."""
        packed = tuple(tensors[name] for name in self.names)
        return packed[0] if len(packed) == 1 else packed

    def unpack(self, stream: Stream) -> dict[str, Tensor]:
        """The tensors by name."""
        tensors = stream if isinstance(stream, tuple) else (stream,)
        return dict(zip(self.names, tensors, strict=True))


def plan_boundaries(inputs: ModelInputs, layers: Sequence[Passes]) -> list[Boundary]:
    """The boundary before each layer, and behind the last one, where only what that wrote is left.

    Raises AssertionError, with the layer's name, where a layer reads what is neither declared nor written before it, or
    where floats are not in the one place that DeepSpeed's pipeline allows.
    """
    known = {field.name: field for field in inputs.fields}
    known |= {layer.writes.name: layer.writes for layer in layers}
    needed = {layers[-1].writes.name}
    boundaries = [_boundary(needed, known)]
    for layer in reversed(layers):
        needed = (needed - {layer.writes.name}) | set(layer.reads)
        boundaries.insert(0, _boundary(needed, known))
    missing = needed - set(inputs.names)
    assert not missing, f"{', '.join(sorted(missing))}: read by a layer, and neither declared nor written before it"
    for layer, boundary in zip(layers, boundaries[1:], strict=True):
        floats = [name for name in boundary.names if known[name].gradient]
        assert len(floats) == 1, f"behind {layer.name} the stream has the floats {floats}; put them together in one"
    return boundaries


def _boundary(needed: set[str], known: Mapping[str, Field]) -> Boundary:
    """Floats first; the rest in the order of declaration."""
    ordered = sorted((name for name in known if name in needed), key=lambda name: not known[name].gradient)
    return Boundary(tuple(ordered))
