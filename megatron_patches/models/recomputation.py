"""Computing again in the backward pass what the forward pass did not keep (Chen et al. 2016)."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from megatron_patches.parallel.randomness import StepRandomness

Recomputation = Literal["none", "selective", "full"]


def recomputed(function: Callable[..., Tensor], *inputs: Any, draws: bool) -> Tensor:
    """`function(*inputs)`, of which only the inputs are kept; `draws` says that it drops something, from one stream.

    DeepSpeed's pipeline needs the non-reentrant kind: it differentiates with respect to activations that the other kind
    detaches.
    """
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=draws)


def replayed(function: Callable[..., Tensor], *inputs: Any, randomness: StepRandomness) -> Tensor:
    """The same for a function that draws from both streams of `randomness`; Dynamo cannot compile it."""
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=randomness.replay)


def without_keeping(made: Tensor, source: Tensor, make: Callable[[Tensor], Tensor]) -> saved_tensors_hooks:
    """Within it, nobody keeps `made`; the backward pass gets `make(source)` in its place.

    For a tensor that is an input of the next matrix: `recomputed` alone would leave it kept there.
    """
    address, shape = made.data_ptr(), made.shape

    def pack(kept: Tensor) -> Tensor | None:
        return None if kept.data_ptr() == address and kept.shape == shape else kept

    def unpack(kept: Tensor | None) -> Tensor:
        if kept is not None:
            return kept
        with torch.no_grad():
            return make(source)

    return saved_tensors_hooks(pack, unpack)
