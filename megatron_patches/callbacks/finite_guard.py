"""Stops a run whose loss or gradient is no number any more."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from data_tools.errors import TrainingFailed
from megatron_patches.callbacks.callback import Callback
from megatron_patches.progress import StepRecord
from megatron_patches.training_config import LossScaleConfig

if TYPE_CHECKING:
    from megatron_patches.trainer import Trainer


class FiniteGuard(Callback):
    """The engine has left out the update of such a step; what was saved before it is good.

    In fp16 an overflow of the gradient is what lowers the loss scale: it counts when the scale is at its minimum.
    """

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        if isfinite(record.loss) and isfinite(record.grad_norm):
            return
        scale = record.loss_scale
        if isfinite(record.loss) and scale is not None and scale > _least_scale(trainer):
            trainer.say(f"step {record.step}: overflow at loss scale {scale:g}; the update was left out")
            return
        raise TrainingFailed(
            f"step {record.step}: loss is {record.loss}, gradient norm is {record.grad_norm}; the update was left "
            "out and the run stopped. Look at the data of this step and the learning rate; the last checkpoint is "
            "from before it"
        )


def _least_scale(trainer: Trainer) -> float:
    return (trainer.config.training.loss_scale or LossScaleConfig()).minimum
