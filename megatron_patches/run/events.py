"""The record of a run: `events/<launch>-<role>.jsonl`, append-only, one file for each writer and launch. Torch-free.

Files are merged on reading. A launch that started at step s owns every step after s; what earlier launches recorded
of those steps was rolled back.
"""

import errno
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from megatron_patches.errors import Damaged, TrainingFailed


@dataclass(frozen=True)
class Event:
    """One line of an event file."""

    launch: str
    kind: str
    time: str
    """UTC, ISO 8601"""
    facts: dict[str, Any]


class EventWriter:
    """Appends events of one launch and one role; each line leaves the process at once, whole or not at all."""

    def __init__(self, folder: Path, launch: str, role: str) -> None:
        self._path = folder / f"{launch}-{role}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = self._path.open("ab", buffering=0)
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


def read_events(folder: Path, kinds: Collection[str] | None = None) -> list[Event]:
    """All events of a run, launch by launch, each file in the order it was written.

    A last line without its end (a process was killed while writing) is left out; any other damage raises.

    Args:
        kinds: only events of these; other lines are not looked at, which is many times faster.

    Raises:
        Damaged: a line that was looked at is no event.
    """
    events = [event for path in sorted(folder.glob("*.jsonl")) for event in _read_file(path, kinds)]
    # stable: the order within a file is kept; by length first, since 10000 comes after 9999
    return sorted(events, key=lambda event: (len(event.launch), event.launch))


def _read_file(path: Path, kinds: Collection[str] | None) -> Iterator[Event]:
    launch = path.stem.split("-", 1)[0]
    beginnings = ("",) if kinds is None else tuple(f'{{"kind": "{kind}"' for kind in kinds)  # as EventWriter begins
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            return
        if not line.startswith(beginnings):
            continue
        try:
            facts = json.loads(line)
            yield Event(launch, facts.pop("kind"), facts.pop("time"), facts)
        except (ValueError, KeyError, AttributeError) as error:
            complaint = f"{path}:{number} is not an event ({error}); restore the file or move it away"
            raise Damaged(complaint) from None


def effective(events: list[Event], kind: str) -> list[Event]:
    """Events of a kind that has a step (step, validation, checkpoint), less those that a later launch rolled back."""
    kept: list[Event] = []
    for event in events:
        if event.kind == "start":
            kept = [other for other in kept if other.facts["step"] <= event.facts["step"]]
        elif event.kind == kind:
            kept.append(event)
    return kept
