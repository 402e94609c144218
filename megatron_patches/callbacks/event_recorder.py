"""Writes the run's events."""

from dataclasses import asdict

from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.checkpoint.saver import SaveRecord
from megatron_patches.run.events import EventWriter
from megatron_patches.run.progress import Message, Outcome, ProfileRecord, StepRecord, ValidationRecord


class EventRecorder(Callback):
    """One file for this launch, written by rank 0."""

    def __init__(self, writer: EventWriter) -> None:
        self.writer = writer

    def on_start(self, trainer: TrainingLoop) -> None:
        layout = trainer.groups.layout
        self.writer.write("start", run=trainer.config.name, step=trainer.progress.step, layout=asdict(layout))

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        match record:
            case StepRecord():
                self.writer.write("step", **{key: value for key, value in asdict(record).items() if value is not None})
            case ValidationRecord():
                self.writer.write("validation", **asdict(record))
            case ProfileRecord():
                self.writer.write("profile", **asdict(record))
            case SaveRecord():
                self.writer.write(
                    "checkpoint", step=record.step, folder=record.written.folder.name, content=record.content,
                    reason=record.reason, bytes=record.written.bytes, stall_seconds=record.stall_seconds,
                    write_seconds=record.write_seconds, removed=record.written.removed,
                )  # fmt: skip
            case Message(text):
                self.writer.write("message", text=text)

    def on_end(self, trainer: TrainingLoop, outcome: Outcome) -> None:
        self.writer.write("end", step=trainer.progress.step, outcome=outcome.value, reason=trainer.stop_reason)

    def on_failure(self, trainer: TrainingLoop, error: Exception) -> None:
        self.writer.write(
            "failure", rank=trainer.groups.rank, step=trainer.progress.step, error=type(error).__name__, text=str(error)
        )

    def close(self) -> None:
        self.writer.close()
