"""From the `optimizer:` section to a torch optimizer whose state exists from the start."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from megatron_patches.optim.optimizer_config import AdamWConfig, OptimizerConfig


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Matrices and tables decay, vectors (biases, norms) do not; one fused kernel for each group."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if isinstance(config, AdamWConfig):
        return AdamW(
            groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True
        )
    return SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=True)


def allocate_state(optimizer: Optimizer) -> None:
    """Create the moments now, as zeros, where torch would at the first update.

    So memory is known before the first step, and a checkpoint has somewhere to be loaded into. An SGD velocity of
    zeros gives the same first update as a missing one.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = _zero_state(optimizer, group, parameter)


def _zero_state(optimizer: Optimizer, group: dict, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    if isinstance(optimizer, AdamW):
        return {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    assert isinstance(optimizer, SGD)
    return {"momentum_buffer": torch.zeros_like(parameter)} if group["momentum"] else {}
