"""Dynamic loss scaling of fp16 (Micikevicius et al. 2018, section 3.2), on the device: the host waits for nothing."""

from collections.abc import Mapping

import torch
from torch import Tensor

from megatron_patches.training.training_config import LossScaleConfig

GROWTH = 2.0  # a power of two: scaling by it rounds nothing


class LossScale:
    """The factor by which the loss is multiplied before the backward pass, and gradients divided before the update.

    The loss is that of the rank, a mean over its own part of the global batch, so that published scales can be taken as
    they are: the sizes of fp16 gradients do not depend on how many ranks there are.

    The scale is halved when overflows have used the hysteresis up, and at every one after that; it is doubled, and the
    hysteresis filled up again, after `window` steps without.
    """

    def __init__(self, config: LossScaleConfig, device: torch.device) -> None:
        self.config = config
        self.scale = torch.tensor(config.initial, dtype=torch.float32, device=device)
        """fp32 scalar on the device; updates happen in place"""
        self._clean_steps = torch.zeros((), dtype=torch.int64, device=device)
        self._hysteresis_left = torch.tensor(config.hysteresis, dtype=torch.int64, device=device)

    def update(self, found_inf: Tensor) -> None:
        """Learn what became of a step: `found_inf`, a scalar on the device, is not zero after an overflow."""
        config, overflow = self.config, found_inf != 0
        left = (self._hysteresis_left - overflow.long()).clamp(min=0)
        halved = (self.scale / GROWTH).clamp(min=config.minimum)
        scale = torch.where(overflow & (left == 0), halved, self.scale)

        clean = torch.where(overflow, 0, self._clean_steps + 1)
        grows = clean >= config.window
        self.scale.copy_(torch.where(grows, scale * GROWTH, scale))
        self._clean_steps.copy_(torch.where(grows, 0, clean))
        self._hysteresis_left.copy_(torch.where(grows, config.hysteresis, left))

    def counters(self) -> dict[str, Tensor]:
        """What a checkpoint must hold, by its name there: live scalars on the device."""
        return {"scale": self.scale, "clean_steps": self._clean_steps, "hysteresis_left": self._hysteresis_left}

    def load(self, counters: Mapping[str, float]) -> None:
        """Continue from the numbers of `counters`; others are left alone."""
        for name, counter in self.counters().items():
            counter.fill_(counters[name])
