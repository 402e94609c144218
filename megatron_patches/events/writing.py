"""Events written, a line each. Torch-free."""

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from megatron_patches.atomic_files import append_to
from megatron_patches.errors import TrainingFailed


class EventWriter:
    """Appends events of one launch and one role; each line leaves the process at once, whole or not at all."""

    def __init__(self, folder: Path, launch: str, role: str) -> None:
        self._path = folder / f"{launch}-{role}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = append_to(self._path, buffering=0)
        except OSError as error:
            raise _cannot_be_written(self._path, error) from error

    def write(self, kind: str, **facts: Any) -> None:
        """Append one event; a number that is not finite is written as its name (JSON has none).

        Raises:
            TrainingFailed: the disk is full, or the file system failed; the file is as it was before.
        """
        event = {"kind": kind, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **facts}
        line = (json.dumps({key: _finite(value) for key, value in event.items()}) + "\n").encode()
        try:
            size = os.fstat(self._file.fileno()).st_size
            try:
                if (written := self._file.write(line)) != len(line):
                    raise OSError(errno.ENOSPC, f"{written} of {len(line)} bytes were written: the disk is full")
            except OSError:
                # its part would become damage in the middle, once there is room for the next event
                self._file.truncate(size)
                raise
        except OSError as error:
            raise _cannot_be_written(self._path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cannot_be_written(path: Path, error: OSError) -> TrainingFailed:
    return TrainingFailed(
        f"{path}: events cannot be written ({error.strerror}), and without its record a run does not go on: make room "
        f"in {path.parent} (df -h, df -i, your quota), or repair it, then launch the run again"
    )


def _finite(value: Any) -> Any:
    is_odd = isinstance(value, float) and (value != value or value in (float("inf"), float("-inf")))
    return str(value) if is_odd else value
