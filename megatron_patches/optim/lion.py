"""Lion (Chen et al. 2023, algorithm 2): every element moves by the learning rate, its sign an average's."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from megatron_patches.optim.slices.verdict import gradients_of, keep_factor, zero_where_left_out


class Lion(Optimizer):
    """One moment, decoupled weight decay; element by element, so it steps whole tensors and flat stretches alike."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, beta1: float, beta2: float) -> None:
        super().__init__(groups, {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": 0.0})

    def zero_state(self, group: dict[str, Any], parameter: Tensor) -> dict[str, Tensor]:
        """State of one tensor before the first update."""
        return {"exp_avg": torch.zeros_like(parameter)}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update. Of an update that is left out (`found_inf`) the gradients are zeros afterwards."""
        assert closure is None, "a closure would need a forward pass inside the step"
        for group in self.param_groups:
            if group["params"]:
                self._step_group(group, group["params"])

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        gradients = gradients_of(parameters)
        averages = [self.state[parameter]["exp_avg"] for parameter in parameters]
        keep = keep_factor(self, parameters[0].device)
        zero_where_left_out(gradients, keep)

        direction = torch._foreach_lerp(averages, gradients, 1 - group["beta1"])
        torch._foreach_sign_(direction)
        torch._foreach_mul_(direction, -group["lr"] * keep)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"] * keep)
        torch._foreach_add_(parameters, direction)

        torch._foreach_mul_(averages, 1 - (1 - group["beta2"]) * keep)
        torch._foreach_add_(averages, gradients, alpha=1 - group["beta2"])
