"""TensorBoard scalars, against steps."""

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.events.tensorboard_files import ScalarFile, step_scalars, validation_scalars
from megatron_patches.run.progress import Message, Outcome, StepRecord, ValidationRecord


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
                self._write(trainer, step_scalars(asdict(record)), record.step)
            case ValidationRecord():
                self._write(trainer, validation_scalars(asdict(record)), record.step)

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

    def _write(self, trainer: TrainingLoop, scalars: Mapping[str, float], step: int) -> None:
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
