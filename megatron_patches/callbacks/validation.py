"""Validation loss of each group, on the same samples every N steps and at the end."""

from collections.abc import Mapping
from time import perf_counter

from data_tools.samples.source import SampleSource
from megatron_patches.callbacks.callback import Callback, TrainingLoop
from megatron_patches.callbacks.evaluation_config import EvaluationConfig
from megatron_patches.errors import Refused
from megatron_patches.objectives.batches import has_target, is_pinned, validation_micro_batches
from megatron_patches.run.progress import ValidatedRecord, ValidationRecord
from megatron_patches.sizes import counted


class Validation(Callback):
    """Every rank computes its part; all get the same losses.

    Args:
        groups: the samples of each group, by its name; each group is validated for itself.
    """

    def __init__(self, config: EvaluationConfig, groups: Mapping[str, SampleSource]) -> None:
        self.config = config
        self.groups = groups

    def on_start(self, trainer: TrainingLoop) -> None:
        """Raises Refused where a group has no target: a loss of it would be the mean of nothing."""
        objective, vocab_size = trainer.batches.objective.for_validation, trainer.config.model.vocabulary
        for name, samples in self.groups.items():
            if not has_target(samples, objective, self.config.samples, vocab_size):
                raise Refused(
                    f"validation group {name}: none of its first {counted(self.config.samples, 'sample')} has a token "
                    "to be predicted (texts of a single token, or answers that the objective leaves out), so it has "
                    "no loss; give it other documents (data.validation, or data.split), or remove it"
                )

    def after_update(self, trainer: TrainingLoop) -> None:
        step = trainer.progress.step
        if step % self.config.every_steps == 0 or step == trainer.config.timetable.steps:
            self.validate(trainer)

    def validate(self, trainer: TrainingLoop) -> None:
        """Validate the current weights on every group."""
        trainer.read_numbers()
        if not trainer.config.data.loader.persistent:
            with trainer.outside_steps():
                trainer.batches.rest()
        found = []
        for name, samples in self.groups.items():
            found.append(self._measure(trainer, name, samples))
            trainer.emit(found[-1])
        trainer.emit(ValidatedRecord(trainer.progress.step, tuple(found)))

    def _measure(self, trainer: TrainingLoop, name: str, samples: SampleSource) -> ValidationRecord:
        started = perf_counter()
        with trainer.outside_steps():
            micro_batches = validation_micro_batches(
                samples,
                trainer.batches.objective.for_validation,
                self.config.samples,
                trainer.config.training.micro_batch_size,
                trainer.config.model.vocabulary,
                trainer.groups,
                is_pinned(trainer.config.data.loader, trainer.groups.device),
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
