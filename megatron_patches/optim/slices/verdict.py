"""Updates left out on the device: the engine's `found_inf`, as torch's fused optimizers read it, for our own."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer


def keep_factor(optimizer: Optimizer, device: torch.device) -> Tensor:
    """1 for an update that counts, 0 for one that must change nothing; a scalar on the device, the host not asked."""
    found_inf: Tensor | None = getattr(optimizer, "found_inf", None)
    if found_inf is None:
        return torch.ones((), dtype=torch.float32, device=device)
    return (found_inf == 0).to(torch.float32)


def zero_where_left_out(tensors: Sequence[Tensor], keep: Tensor) -> None:
    """Zeros in place of the numbers of an update that is left out: a factor of 0 would leave NaN what it is."""
    left_out = keep == 0
    for tensor in tensors:
        tensor.masked_fill_(left_out, 0.0)


def gradients_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The gradients that an update is about to read; every tensor must have one."""
    gradients = [tensor.grad for tensor in tensors]
    assert all(gradient is not None for gradient in gradients), "a tensor has no gradient to step by"
    return gradients  # type: ignore[return-value]
