"""fp32 master copies of bf16 weights, for ranks that hold the whole optimizer state (ZeRO 0)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class MasterWeights(Optimizer):
    """Steps fp32 copies of the model's weights and rounds the result back into the model.

    Gradients arrive in fp32 (`Tensor.grad_dtype`), so accumulation over micro-batches loses nothing. It shares
    `param_groups` and `state` with the optimizer that it wraps.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.inner = optimizer
        self.masters: dict[nn.Parameter, Tensor] = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                master = parameter.detach().float().clone()
                master.requires_grad_(True)
                self.masters[parameter] = master
            group["params"] = [self.masters[parameter] for parameter in group["params"]]
        super().__init__(list(self.masters.values()), optimizer.defaults)
        self.param_groups = optimizer.param_groups
        self.state = optimizer.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the model's gradients."""
        assert closure is None, "a closure would need a forward pass inside the step"
        for parameter, master in self.masters.items():
            master.grad = parameter.grad
        self.inner.step()
        for master in self.masters.values():
            master.grad = None
        torch._foreach_copy_(list(self.masters), list(self.masters.values()))
