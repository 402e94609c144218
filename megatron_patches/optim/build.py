"""From the `optimizer:` section to an optimizer whose state exists from the start."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from megatron_patches.optim.adafactor import Adafactor
from megatron_patches.optim.lion import Lion
from megatron_patches.optim.muon import Muon
from megatron_patches.optim.optimizer_config import (
    AdafactorConfig,
    AdamWConfig,
    LionConfig,
    MuonConfig,
    OptimizerConfig,
    SGDConfig,
)
from megatron_patches.optim.parameter_groups import parameter_groups
from megatron_patches.optim.slices.sliced_optimizer import SlicedOptimizer
from megatron_patches.parameters.name_patterns import is_trained
from megatron_patches.training.training_config import TrainingConfig


def select_trainable(training: TrainingConfig, parameters: dict[str, nn.Parameter]) -> None:
    """Switch gradients off for parameters that `trainable` and `frozen` leave out; by canonical name."""
    for name, parameter in parameters.items():
        parameter.requires_grad_(is_trained(training, name))


def build_optimizer(
    config: OptimizerConfig, parameters: dict[str, nn.Parameter], tied: Collection[str] = ()
) -> Optimizer:
    """The optimizer of the trainable ones of these parameters, by canonical name; other stages hold the `tied` too.

    A `SlicedOptimizer` is bound to its fragments before `allocate_state`.
    """
    groups, rate = parameter_groups(config, parameters, tied), config.learning_rate
    if isinstance(config, AdamWConfig):
        return AdamW(groups, lr=rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True)
    if isinstance(config, SGDConfig):
        return SGD(groups, lr=rate, momentum=config.momentum, fused=True)
    if isinstance(config, LionConfig):
        return Lion(groups, lr=rate, beta1=config.beta1, beta2=config.beta2)
    trained = {name: parameters[name] for group in groups for name in group["names"]}
    if isinstance(config, AdafactorConfig):
        return Adafactor(groups, config, trained)
    assert isinstance(config, MuonConfig)
    return Muon(groups, config, trained)


def allocate_state(optimizer: Optimizer, stepped: Sequence[Sequence[Tensor]] | None = None) -> None:
    """Create the moments now, as zeros, where torch would at the first update.

    So memory is known before the first step, and a checkpoint has somewhere to be loaded into. An SGD velocity of
    zeros gives the same first update as a missing one. `stepped` are the tensors of each group; unset means its
    `params`, which DeepSpeed keeps empty between the steps of ZeRO 3.
    """
    tensors = stepped if stepped is not None else [group["params"] for group in optimizer.param_groups]
    for group, members in zip(optimizer.param_groups, tensors, strict=True):
        for tensor in members:
            optimizer.state[tensor] = _zero_state(optimizer, group, tensor)


def _zero_state(optimizer: Optimizer, group: dict[str, Any], tensor: Tensor) -> dict[str, Tensor]:
    if isinstance(optimizer, (Lion, SlicedOptimizer)):
        return optimizer.zero_state(group, tensor)
    if isinstance(optimizer, AdamW):
        return {
            "step": torch.zeros((), dtype=torch.float32, device=tensor.device),
            "exp_avg": torch.zeros_like(tensor),
            "exp_avg_sq": torch.zeros_like(tensor),
        }
    assert isinstance(optimizer, SGD)
    return {"momentum_buffer": torch.zeros_like(tensor)} if group["momentum"] else {}
