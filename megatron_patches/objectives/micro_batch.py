"""What one forward pass reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenContext:
    """What a token knows beside its neighbours, where that differs from the plain causal case.

    `positions` is int64 `[batch, sequence]`; None means 0 ... sequence - 1. `visible` is int64 `[batch, sequence, 2]`:
    the half-open range of places whose keys a token sees, always with its own place in it; None means 0 ... its own.
    """

    positions: Tensor | None = None
    visible: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """What there is of it, positions first: what travels through a pipeline."""
        return tuple(tensor for tensor in (self.positions, self.visible) if tensor is not None)

    @staticmethod
    def of(tensors: Sequence[Tensor]) -> "TokenContext":
        """The inverse of `tensors`; the two differ in their number of dimensions."""
        by_dimensions = {tensor.dim(): tensor for tensor in tensors}
        return TokenContext(by_dimensions.get(2), by_dimensions.get(3))


PLAIN_CONTEXT = TokenContext()


@dataclass(frozen=True)
class MicroBatch:
    """Samples of one forward pass.

    `tokens` and `labels` are int64 `[batch, sequence]`; `weights` is fp32 `[batch, sequence]`: how much each label
    counts, 0 for positions without a target (their label is any valid id). `targets` is what all weights of the global
    batch added up to before they were divided by it; 1 where they were not.
    """

    tokens: Tensor
    labels: Tensor
    weights: Tensor
    context: TokenContext = PLAIN_CONTEXT
    targets: float = 1.0

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on a device; copies from pinned memory are not waited for."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "MicroBatch":
        """The same in memory that a GPU copies from by itself."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "MicroBatch":
        own = (self.tokens, self.labels, self.weights, *self.context.tensors())
        tokens, labels, weights, *context = (change(tensor) for tensor in own)
        return MicroBatch(tokens, labels, weights, TokenContext.of(context), self.targets)
