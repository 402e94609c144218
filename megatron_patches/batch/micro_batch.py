"""The samples of one forward pass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MicroBatch:
    """What the model reads, by the names that the objective declares, and what it is compared with.

    `labels` is int64 `[batch, positions]`; `weights` is fp32 of the same shape: how much each label counts, 0 for
    positions without a target (their label is any valid id). `targets` is what all weights of the global batch added
    up to before they were divided by it; 1 where they were not.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor
    weights: Tensor
    targets: float = 1.0

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on a device; copies from pinned memory are not waited for."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "MicroBatch":
        """The same in memory that a GPU copies from by itself."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "MicroBatch":
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        return MicroBatch(inputs, change(self.labels), change(self.weights), self.targets)
