"""The trainer's own step, as a launch takes it, as one side of a measurement."""

from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.errors import TrainingFailed
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.run.config import RunConfig
from megatron_patches.run.progress import StepRecord
from megatron_patches.run.run_directory import Launch
from megatron_patches.training.train import build_trainer


class StepNumbers(Callback):
    """Keeps what the trainer tells of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.padding: list[float] = []

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        if isinstance(record, StepRecord):
            self.losses.append(record.loss)
            self.padding.append(record.padding or 0.0)


class OurLoop:
    """The trainer's own step with every callback of a launch: events, log, TensorBoard, signals."""

    def __init__(self, config: RunConfig, launch: Launch, groups: ProcessGroups) -> None:
        self.trainer, _ = build_trainer(config, launch, groups)
        self._numbers = StepNumbers()
        self.trainer.callbacks = [*self.trainer.callbacks, self._numbers]
        for callback in self.trainer.callbacks:
            callback.on_start(self.trainer)

    def step(self) -> None:
        """One optimizer step."""
        self.trainer.train_step()
        if self.trainer.stop_reason is not None:
            raise TrainingFailed(f"the measurement was stopped by {self.trainer.stop_reason}; start it again")

    def losses(self) -> list[float]:
        """Losses of all steps so far."""
        self.trainer.read_numbers()
        return list(self._numbers.losses)  # a copy: the steps of a profile are not the peer's

    def padding(self) -> list[float]:
        """Share of each step's places that hold no text, of all steps so far."""
        self.trainer.read_numbers()
        return list(self._numbers.padding)

    def close(self) -> None:
        """Release threads and files."""
        self.trainer.batches.close()
        for callback in self.trainer.callbacks:
            callback.close()
