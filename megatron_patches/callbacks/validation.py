"""Validation loss on the same samples every N steps and at the end."""

from collections.abc import Mapping
from time import perf_counter

from data_tools.samples.source import SampleSource
from megatron_patches.callbacks.callback import Callback, TrainingLoop
from megatron_patches.callbacks.evaluation_config import EvaluationConfig
from megatron_patches.objectives.batches import validation_micro_batches
from megatron_patches.run.progress import ValidationRecord


class Validation(Callback):
    """Every rank computes its part; all get the same loss.

    `sources` are named; each is validated for itself, and the first one's loss is what checkpoints go by.
    """

    def __init__(self, config: EvaluationConfig, sources: Mapping[str, SampleSource]) -> None:
        self.config = config
        self.sources = sources

    def after_update(self, trainer: TrainingLoop) -> None:
        step = trainer.progress.step
        if step % self.config.every_steps == 0 or step == trainer.config.timetable.steps:
            self.validate(trainer)

    def validate(self, trainer: TrainingLoop) -> None:
        """Validate the current weights on every source."""
        trainer.read_numbers()
        for name, source in self.sources.items():
            trainer.emit(self._measure(trainer, name, source))

    def _measure(self, trainer: TrainingLoop, name: str, source: SampleSource) -> ValidationRecord:
        started = perf_counter()
        with trainer.outside_steps():
            micro_batches = validation_micro_batches(
                source,
                trainer.batches.objective,
                self.config.samples,
                trainer.config.training.micro_batch_size,
                trainer.config.model.vocabulary,
                trainer.groups,
            )
            loss = trainer.engine.evaluate(micro_batches)["loss"]
        return ValidationRecord(
            step=trainer.progress.step,
            samples=trainer.progress.samples,
            tokens=trainer.progress.tokens,
            source=name,
            loss=loss.mean,
            validation_samples=self.config.samples,
            targets=loss.targets,
            seconds=perf_counter() - started,
        )
