"""Files that TensorBoard reads, written while a run trains, or from its events when it is rolled back. Torch-free."""

import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.compat.proto.event_pb2 import Event as BoardEvent
from tensorboard.compat.proto.event_pb2 import SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from megatron_patches.artefacts.chosen import UNNAMED_GROUP
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import TEMPORARY, fsync_folder
from megatron_patches.events.group_losses import group_of_validation
from megatron_patches.events.reading import Event, effective, read_events
from megatron_patches.foreign.files import names_in

_FLUSH_SECONDS = 30.0
_BEGINNING = "events.out.tfevents."
_VERSION = "brain.Event:2"
_OF_A_STEP = (
    *("loss", "learning_rate", "grad_norm", "tokens_per_second", "tflops_per_process", "loss_scale"),
    *("data_wait_seconds", "padding", "text_tokens_per_second"),
)


def step_scalars(facts: Mapping[str, Any]) -> dict[str, float]:
    """What is shown of a step; events write what is not finite as its name."""
    found = {f"training/{name}": facts.get(name) for name in _OF_A_STEP}
    return {name: float(value) for name, value in found.items() if value is not None}


def validation_scalars(facts: Mapping[str, Any]) -> dict[str, float]:
    """What is shown of a validation on one group; nothing where its record has no loss."""
    return {loss_name(group_of_validation(facts)): float(facts["loss"])} if "loss" in facts else {}


def loss_name(group: str) -> str:
    """The curve of a validation group's loss: beside each other under `validation`, whatever people call the groups."""
    return "validation/loss" if group == UNNAMED_GROUP else f"validation/{group} loss"


class ScalarFile:
    """One file that TensorBoard reads.

    torch's SummaryWriter writes in a thread of its own, which opens the file by its path at each flush and prints a
    traceback where that fails; here the caller gets the error.

    Raises OSError, from each method, where the file cannot be written.
    """

    def __init__(self, folder: Path, first_step: int, after: Sequence[str] | None = None) -> None:
        """
        Args:
            first_step: what earlier files have of this step and of later ones is hidden.
            after: the names of the earlier files; None is what is in the folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # a name as TensorBoard's own writer makes it: readers look for `tfevents`, and take the files in order of names
        earlier = [path.name for path in folder.iterdir()] if after is None else after
        seconds = max([int(time.time()), *(_seconds(name) + 1 for name in earlier)])
        self.path = folder / f"{_BEGINNING}{seconds:010d}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        self._file: BinaryIO = self.path.open("xb")
        self._records = RecordWriter(self._file)
        self._flushed = time.monotonic()
        self._write(BoardEvent(wall_time=time.time(), file_version=_VERSION))
        self._write(BoardEvent(wall_time=time.time(), step=first_step, file_version=_VERSION))
        started = SessionLog(status=SessionLog.START)
        self._write(BoardEvent(wall_time=time.time(), step=first_step, session_log=started))
        self.flush()

    def add(self, scalars: Mapping[str, float], step: int, at: float | None = None) -> None:
        """Numbers of one step, found at a time in seconds since 1970; None is now."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(BoardEvent(wall_time=at or time.time(), step=step, summary=Summary(value=values)))
        if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand over to the file system what was written."""
        self._flushed = time.monotonic()
        self._file.flush()

    def sync(self) -> None:
        """Have it on the disk."""
        self.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._file.close()

    def _write(self, event: BoardEvent) -> None:
        self._records.write(event.SerializeToString())


def rebuild_tensorboard(run: RunFolder, until: int) -> bool:
    """Make the folder of a run show what its events say of the steps up to one, and nothing else.

    The older files go when the new one is whole. Where events lack steps, which only those files then have, they stay,
    and later steps are hidden.

    Returns:
        Whether the folder was rebuilt; False where the run has none, or the older files stay.

    Raises:
        Damaged: an event cannot be read.
        OSError: the folder cannot be written to; it is as it was.
    """
    older = _files_of(run.tensorboard)
    if not older:
        return False
    events = read_events(run.events, ("start", "step", "validation"))
    steps = {event.facts["step"]: event for event in effective(events, "step") if event.facts["step"] <= until}
    if not steps or len(steps) <= until - min(steps):
        ScalarFile(run.tensorboard, until + 1).close()
        return False
    validations = [event for event in effective(events, "validation") if event.facts["step"] <= until]
    # beside the folder: of files in it TensorBoard reads the unfinished ones too
    partial = run.tensorboard.with_name(f"{run.tensorboard.name}{TEMPORARY}")
    shutil.rmtree(partial, ignore_errors=True)  # of a rebuilding that was killed
    written = _written(partial, older, [*steps.values(), *validations])
    written.rename(run.tensorboard / written.name)
    fsync_folder(run.tensorboard)
    for name in older:
        (run.tensorboard / name).unlink(missing_ok=True)
    partial.rmdir()
    return True


def _seconds(name: str) -> int:
    """The time in a file's name; 0 in another name."""
    digits = name.removeprefix(_BEGINNING).partition(".")[0]
    return (
        int(digits)
        if name.startswith(_BEGINNING) and len(digits) == 10 and digits.isascii() and digits.isdecimal()
        else 0
    )


def _files_of(folder: Path) -> list[str]:
    return [name for name in names_in(folder) if "tfevents" in name] if folder.is_dir() else []


def _written(folder: Path, after: Sequence[str], events: list[Event]) -> Path:
    """A file with all of them, whole on the disk; nothing is left of one that could not be written."""
    file = ScalarFile(folder, 1, after)
    try:
        for event in sorted(events, key=lambda event: int(event.facts["step"])):
            scalars = validation_scalars(event.facts) if event.kind == "validation" else step_scalars(event.facts)
            file.add(scalars, event.facts["step"], datetime.fromisoformat(event.time).timestamp())
        file.sync()
    except BaseException:
        file.path.unlink()
        raise
    finally:
        file.close()
    return file.path
