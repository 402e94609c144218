"""Where copies of a run's artefacts lie, and when each was last compared: `copies/<writer>.jsonl`, append-only.

Like events: one writer a file, merged on reading, a torn last line left out. Lines carry a number that grows over
all writers, so that the later of two lines is known although clocks differ.
"""

import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Damaged


@dataclass(frozen=True)
class Copy:
    """One artefact at one location."""

    id: str
    """of the artefact there; weights of a full checkpoint have an id of their own"""
    of: str
    """id of the artefact here that it is a copy, or a part, of"""
    name: str
    """checkpoints/step-0000001000"""
    location: str
    """what `--to` names, with the run's folder"""
    size: int
    """bytes"""
    whole: bool
    """False: a part, such as weights without the optimizer"""
    verified: str | None
    """when it was last compared with its manifest and found whole; UTC"""
    how: str
    """by what it was compared"""
    problem: str | None = None
    """why it is not to be relied on: gone, or damaged"""
    number: int = 0


class CopyRecorder:
    """Appends what one process learns; its file comes to be with the first line."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = RunFolder(run_folder).copies
        self._name = _file_name()
        self._last = 0

    def record(self, copy: Copy) -> None:
        """Append one line, numbered after all that are there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._last:
            known = read_copies(self._folder.parent, latest=False)
            self._last = max((each.number for each in known), default=0)
        self._last += 1
        line = json.dumps(asdict(replace(copy, number=self._last)), ensure_ascii=False) + "\n"
        try:
            with (self._folder / self._name).open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self._name = _file_name()  # a full disk took half a line: what follows in the same file would be damage
            raise
        os.utime(self._folder)  # a longer file leaves its folder's time alone, and the catalogue goes by that


def _file_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}.jsonl"


def read_copies(run_folder: Path, latest: bool = True) -> list[Copy]:
    """What is known of a run's copies: the latest word on each artefact at each location, or every word."""
    lines: list[Copy] = []
    for path in sorted(RunFolder(run_folder).copies.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            if line.endswith("\n"):  # a process that was killed while writing leaves its last line without an end
                lines.append(_parse(line, path))
    if not latest:
        return lines
    by_name = {(copy.location, copy.name): copy for copy in sorted(lines, key=lambda copy: copy.number)}
    return sorted(by_name.values(), key=lambda copy: (copy.name, copy.location))


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _parse(line: str, path: Path) -> Copy:
    try:
        content: dict[str, Any] = json.loads(line)
        return Copy(**content)
    except (ValueError, TypeError) as error:
        raise Damaged(
            f"{path} holds a line that is no record of a copy ({error}); remove the line, then "
            "`tools/sync-to-hub` of the run records anew what is there"
        ) from None
