"""Writes the run's events."""

import socket
from dataclasses import asdict
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

from data_tools.samples.delivered import VERSION
from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.checkpoint.saver import SaveRecord
from megatron_patches.events.writing import EventWriter
from megatron_patches.hardware.gpu_samples import GpuSampler
from megatron_patches.run.progress import (
    ChangeRecord,
    DataRecord,
    DataWaitRecord,
    Message,
    Outcome,
    ProfileRecord,
    StepRecord,
    ValidationRecord,
)


class EventRecorder(Callback):
    """One file for this launch, written by rank 0; with the GPUs of its node, sampled, where there are any."""

    def __init__(self, writer: EventWriter, sample_gpus: bool = False) -> None:
        self.writer = writer
        self._samples: SimpleQueue[dict[str, Any] | Message] = SimpleQueue()
        """what the sampler's thread has found; a file has one writer"""
        self._sampler: GpuSampler | None = None
        if sample_gpus:
            self._sampler = GpuSampler(self._keep_samples, self._keep_complaint)

    def on_start(self, trainer: TrainingLoop) -> None:
        layout = trainer.groups.layout
        self.writer.write(
            "start",
            run=trainer.config.name,
            step=trainer.progress.step,
            layout=asdict(layout),
            delivered_version=VERSION,
        )
        if self._sampler is not None:
            self._sampler.start()

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        match record:
            case StepRecord():
                self._write_samples(trainer, record.step)
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
            case DataRecord():
                self.writer.write("data", step=record.step, best_by=record.best_by, **record.facts)
            case DataWaitRecord():
                self.writer.write("data_wait", **asdict(record))
            case ChangeRecord():
                self.writer.write("change", **asdict(record))
            case Message(text):
                self.writer.write("message", text=text)

    def on_end(self, trainer: TrainingLoop, outcome: Outcome) -> None:
        self.writer.write("end", step=trainer.progress.step, outcome=outcome.value, reason=trainer.stop_reason)

    def on_failure(self, trainer: TrainingLoop, error: Exception) -> None:
        self.writer.write(
            "failure", rank=trainer.groups.rank, step=trainer.progress.step, error=type(error).__name__, text=str(error)
        )

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.stop()
        self.writer.close()

    def _keep_samples(self, samples: list[dict[str, float]]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._samples.put({"sampled": now, "host": socket.gethostname(), "gpus": samples})

    def _keep_complaint(self, text: str) -> None:
        self._samples.put(Message(text))

    def _write_samples(self, trainer: TrainingLoop, step: int) -> None:
        while not self._samples.empty():
            found = self._samples.get()
            if isinstance(found, Message):
                trainer.emit(found)
            else:
                self.writer.write("gpus", step=step, **found)
