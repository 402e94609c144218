"""Validation loss on the same samples every N steps and at the end."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from data_tools.windows import TokenWindows
from megatron_patches.batches import validation_micro_batches
from megatron_patches.callbacks.callback import Callback
from megatron_patches.evaluation_config import EvaluationConfig
from megatron_patches.progress import ValidationRecord

if TYPE_CHECKING:
    from megatron_patches.trainer import Outcome, Trainer


class Validation(Callback):
    """Every rank computes its part; all get the same loss."""

    def __init__(self, config: EvaluationConfig, windows: TokenWindows) -> None:
        self.config = config
        self.windows = windows
        self._validated_step = -1

    def after_update(self, trainer: Trainer) -> None:
        if trainer.progress.step % self.config.every_steps == 0:
            self.validate(trainer)

    def on_end(self, trainer: Trainer, outcome: Outcome) -> None:
        if outcome.value == "finished":
            self.validate(trainer)

    def validate(self, trainer: Trainer) -> None:
        """Validate the current weights, once a step."""
        progress = trainer.progress
        if progress.step == self._validated_step:
            return
        trainer.read_numbers()
        started = perf_counter()
        micro_batches = validation_micro_batches(
            self.windows,
            self.config.samples,
            trainer.config.training.micro_batch_size,
            trainer.config.model.vocab_size,
            trainer.groups,
        )
        loss = trainer.engine.evaluate(micro_batches).item()
        self._validated_step = progress.step
        seconds = perf_counter() - started
        trainer.pause_clock(seconds)
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

    def state(self) -> dict[str, int]:
        return {"validated_step": self._validated_step}

    def load_state(self, state: dict[str, int]) -> None:
        self._validated_step = state.get("validated_step", -1)
