"""Computing again in the backward pass what the forward pass did not keep (Chen et al. 2016)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from megatron_patches.parallel.randomness import StepRandomness


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
    address, elements = made.data_ptr(), made.numel()

    def pack(kept: Tensor) -> Tensor | torch.Size:
        # nn.Linear keeps a view of its input that has tokens and batch in one dimension
        is_made = kept.data_ptr() == address and kept.numel() == elements and kept.is_contiguous()
        return kept.shape if is_made else kept

    def unpack(kept: Tensor | torch.Size) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad():
            return make(source).view(kept)

    return saved_tensors_hooks(pack, unpack)
