"""Validation loss on the same samples every N steps and at the end."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from data_tools.windows import TokenWindows
from megatron_patches.batches import validation_micro_batches
from megatron_patches.callbacks.callback import Callback
from megatron_patches.callbacks.evaluation_config import EvaluationConfig
from megatron_patches.progress import ValidationRecord

if TYPE_CHECKING:
    from megatron_patches.trainer import Trainer


class Validation(Callback):
    """Every rank computes its part; all get the same loss."""

    def __init__(self, config: EvaluationConfig, windows: TokenWindows) -> None:
        self.config = config
        self.windows = windows

    def after_update(self, trainer: Trainer) -> None:
        step = trainer.progress.step
        if step % self.config.every_steps == 0 or step == trainer.config.timetable.steps:
            self.validate(trainer)

    def validate(self, trainer: Trainer) -> None:
        """Validate the current weights."""
        progress = trainer.progress
        trainer.read_numbers()
        started = perf_counter()
        with trainer.outside_steps():
            micro_batches = validation_micro_batches(
                self.windows,
                trainer.batches.objective,
                self.config.samples,
                trainer.config.training.micro_batch_size,
                trainer.config.model.vocab_size,
                trainer.groups,
            )
            loss = trainer.engine.evaluate(micro_batches)["loss"].mean
        seconds = perf_counter() - started
        trainer.announce_validation(
            ValidationRecord(
                step=progress.step,
                samples=progress.samples,
                tokens=progress.tokens,
                loss=loss,
                validation_samples=self.config.samples,
                seconds=seconds,
            )
        )
