"""Stops a run whose loss or gradient is no number any more."""

from math import isfinite

from megatron_patches.artefacts.folders import next_start
from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.errors import TrainingFailed
from megatron_patches.run.progress import Message, StepRecord
from megatron_patches.training.training_config import LossScaleConfig


class FiniteGuard(Callback):
    """The engine has left out the update of such a step; what was saved before it is good.

    In fp16 an overflow of the gradient is what lowers the loss scale: it counts when the scale is at its minimum.
    """

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        if not isinstance(record, StepRecord) or (isfinite(record.loss) and isfinite(record.grad_norm)):
            return
        scale = record.loss_scale
        if isfinite(record.loss) and scale is not None and scale > _least_scale(trainer):
            trainer.emit(Message(f"step {record.step}: overflow at loss scale {scale:g}; the update was left out"))
            return
        raise TrainingFailed(
            f"step {record.step}: loss is {record.loss}, gradient norm is {record.grad_norm}; the update was left "
            "out and the run stopped. Look at the data of this step and the learning rate; "
            f"{next_start(trainer.launch.run.checkpoints)}"
        )


def _least_scale(trainer: TrainingLoop) -> float:
    return (trainer.config.training.loss_scale or LossScaleConfig()).minimum
