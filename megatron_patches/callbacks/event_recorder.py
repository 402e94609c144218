"""Writes the run's events."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from megatron_patches.callbacks.callback import Callback
from megatron_patches.events import EventWriter
from megatron_patches.progress import Outcome, ProfileRecord, StepRecord, ValidationRecord

if TYPE_CHECKING:
    from megatron_patches.checkpoint.saver import SaveRecord
    from megatron_patches.trainer import Trainer


class EventRecorder(Callback):
    """One file for this launch, written by rank 0."""

    def __init__(self, writer: EventWriter) -> None:
        self.writer = writer

    def on_start(self, trainer: Trainer) -> None:
        layout = trainer.groups.layout
        self.writer.write("start", run=trainer.config.name, step=trainer.progress.step, layout=asdict(layout))

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        measured = {key: value for key, value in asdict(record).items() if value is not None}
        self.writer.write("step", **measured)

    def on_validation(self, trainer: Trainer, record: ValidationRecord) -> None:
        self.writer.write("validation", **asdict(record))

    def on_profile(self, trainer: Trainer, record: ProfileRecord) -> None:
        self.writer.write("profile", **asdict(record))

    def on_checkpoint(self, trainer: Trainer, record: SaveRecord) -> None:
        self.writer.write(
            "checkpoint", step=record.step, folder=record.written.folder.name, content=record.content,
            reason=record.reason, bytes=record.written.bytes, stall_seconds=record.stall_seconds,
            write_seconds=record.write_seconds, removed=record.written.removed,
        )  # fmt: skip

    def on_message(self, trainer: Trainer, text: str) -> None:
        self.writer.write("message", text=text)

    def on_end(self, trainer: Trainer, outcome: Outcome) -> None:
        self.writer.write("end", step=trainer.progress.step, outcome=outcome.value, reason=trainer.stop_reason)

    def on_failure(self, trainer: Trainer, error: Exception) -> None:
        self.writer.write("failure", step=trainer.progress.step, error=type(error).__name__, text=str(error))

    def close(self) -> None:
        self.writer.close()
