"""Where copies of a run's artefacts lie, and when each was last compared: `copies/<writer>.jsonl`, append-only.

Like events: one writer a file, merged on reading, a torn last line left out. Lines carry a number that grows over
all writers, so that the later of two lines is known although clocks differ.
"""

import json
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import append_to
from megatron_patches.errors import Damaged
from megatron_patches.foreign.credentials import without_credentials
from megatron_patches.foreign.files import names_in, read_bounded
from megatron_patches.foreign.json_text import parse_object, whole_of
from megatron_patches.foreign.printable import printable

_BYTES = 1 << 30
"""largest file of one writer that is read: three million lines"""


@dataclass(frozen=True)
class Copy:
    """One artefact at one location."""

    id: str
    """of the artefact there; weights of a full checkpoint have an id of their own"""
    of: str
    """id of the artefact here that it is a copy, or a part, of"""
    name: str
    """checkpoints/step-0000001000; empty where it lies at the location's root"""
    location: str
    """what `--to` names, with the run's folder, or with a revision: hf://org/repo@step-1000"""
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
            with append_to(self._folder / self._name) as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self._name = _file_name()  # a full disk took half a line: what follows in the same file would be damage
            raise
        os.utime(self._folder)  # a longer file leaves its folder's time alone, and the catalogue goes by that


def _file_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}.jsonl"


def read_copies(run_folder: Path, latest: bool = True) -> list[Copy]:
    """What is known of a run's copies: the latest word on each artefact at each location, or every word.

    Raises:
        Damaged: a line is no record of a copy, or a file cannot be read. One line less may be the one that says that a
            copy is gone, so nothing is known then.
    """
    folder = RunFolder(run_folder).copies
    lines: list[Copy] = []
    for name in names_in(folder):
        if name.endswith(".jsonl"):
            path = folder / name
            for number, line in enumerate(read_bounded(path, _BYTES).split(b"\n")[:-1], 1):
                # what follows the last line end was torn: a process was killed while writing
                lines.append(_parse(line, f"{printable(path)}:{number}"))
    if not latest:
        return lines
    by_name = {(copy.location, copy.name): copy for copy in sorted(lines, key=lambda copy: copy.number)}
    return sorted(by_name.values(), key=lambda copy: (copy.name, copy.location))


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _parse(line: bytes, origin: str) -> Copy:
    try:
        content = parse_object(line, origin)
        content = {"problem": None, "number": 0, **content}
        wrong = [name for name, fits in _FIELDS.items() if name not in content or not fits(content[name])]
        wrong += [name for name in content if name not in _FIELDS]
        if wrong:
            raise Damaged(f"{origin} (see {printable(', '.join(wrong))})")
    except Damaged as error:
        raise Damaged(
            f"{error}: it is no record of a copy; remove the line, then `tools/sync-to-hub` of the run records again "
            "what is there"
        ) from None
    # earlier versions wrote addresses down with what was in them, and every view shows them
    return Copy(**{**content, "location": without_credentials(content["location"])})


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_null(value: Any) -> bool:
    return value is None or isinstance(value, str)


_FIELDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("id", "of", "name", "location", "how"), _is_text),
    "size": lambda value: whole_of(value) is not None,
    "whole": lambda value: isinstance(value, bool),
    "verified": _is_text_or_null,
    "problem": _is_text_or_null,
    "number": lambda value: whole_of(value) is not None,
}
