"""TensorBoard scalars, against steps."""

import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.run.progress import Message, Outcome, StepRecord, ValidationRecord

_FLUSH_SECONDS = 30.0
_VERSION = "brain.Event:2"


class ScalarFile:
    """One file that TensorBoard reads.

    torch's SummaryWriter writes in a thread of its own, which opens the file by its path at each flush and prints a
    traceback where that fails; here the caller gets the error.

    Raises OSError, from each method, where the file cannot be written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """
        Args:
            first_step: what earlier files of the folder have of this step and of later ones is hidden.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # a name as TensorBoard's own writer makes it: readers look for `tfevents`, and take the files in order of time
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        self._file: BinaryIO = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._flushed = time.monotonic()
        self._write(Event(wall_time=time.time(), file_version=_VERSION))
        self._write(Event(wall_time=time.time(), step=first_step, file_version=_VERSION))
        started = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=first_step, session_log=started))
        self.flush()

    def add(self, scalars: dict[str, float], step: int) -> None:
        """Numbers of one step."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand over to the file system what was written."""
        self._flushed = time.monotonic()
        self._file.flush()

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())


class TensorBoardLog(Callback):
    """Rank 0 only. A resumed launch hides what an earlier one wrote after its step.

    So there is no file before `on_start`: the step is known when the run has resumed. A file that cannot be written
    is given up: a picture of the run is not worth the run, and the events have it all.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: ScalarFile | None = None

    def on_start(self, trainer: TrainingLoop) -> None:
        try:
            self._file = ScalarFile(self._folder, trainer.progress.step + 1)
        except OSError as error:
            trainer.emit(Message(self._complaint(error)))

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        match record:
            case StepRecord():
                self._write(trainer, _numbers(record), record.step)
            case ValidationRecord():
                self._write(trainer, {f"{record.source}/loss": record.loss}, record.step)

    def on_end(self, trainer: TrainingLoop, outcome: Outcome) -> None:
        if self._file is None:
            return
        try:
            self._file.flush()
        except OSError as error:
            self._give_up(trainer, error)

    def close(self) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as error:
            print(f"note: {self._complaint(error)}", file=sys.stderr, flush=True)
        self._file = None

    def _write(self, trainer: TrainingLoop, scalars: dict[str, float], step: int) -> None:
        if self._file is None:
            return
        try:
            self._file.add(scalars, step)
        except OSError as error:
            self._give_up(trainer, error)

    def _give_up(self, trainer: TrainingLoop, error: OSError) -> None:
        given_up, self._file = self._file, None
        if given_up is not None:
            with suppress(OSError):  # the same error again, of what was to be written
                given_up.close()
        trainer.emit(Message(self._complaint(error)))

    def _complaint(self, error: OSError) -> str:
        return f"TensorBoard gets nothing more in this launch: {self._folder} cannot be written to ({error.strerror})"


def _numbers(record: StepRecord) -> dict[str, float]:
    names = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "tflops_per_process", "loss_scale")
    found = {f"training/{name}": getattr(record, name) for name in names}
    return {name: float(value) for name, value in found.items() if value is not None}
