"""Marks in a checkpoint's folder, beside what its manifest lists: that a person or the run wants it kept, that it was
read back whole, or found damaged. Torch-free.

Each is a small file of its own, written whole, so that no two writers share one; moving the folder takes it along.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from os.path import lexists
from pathlib import Path

from megatron_patches.artefacts.manifest import Manifest, verify_files
from megatron_patches.atomic_files import fsync_folder, write_atomically
from megatron_patches.errors import Damaged, Missing, TrainyardError
from megatron_patches.foreign.files import is_file, read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable

PINNED = "pinned.json"
VERIFIED = "verified.json"
DAMAGED = "damaged.json"
MARKS = frozenset({PINNED, VERIFIED, DAMAGED})
_BYTES = 1 << 20


@dataclass(frozen=True)
class Mark:
    """Why, and when."""

    reason: str
    date: str
    """UTC, ISO 8601"""


def pin(folder: Path, reason: str) -> None:
    """Keep a checkpoint until `unpin`, whatever the rules say."""
    _write(folder / PINNED, reason)


def unpin(folder: Path) -> None:
    """Leave a checkpoint to the rules again; nothing happens where it has no pin."""
    (folder / PINNED).unlink(missing_ok=True)
    fsync_folder(folder)


def is_pinned(folder: Path) -> bool:
    """Whether a checkpoint has a pin, whatever is written on it."""
    return lexists(folder / PINNED)


def pin_of(folder: Path) -> Mark | None:
    """The pin of a checkpoint, if it has one; Damaged where it cannot be read."""
    return _read(folder / PINNED)


def verify_and_mark(folder: Path, manifest: Manifest, reader: str) -> list[str]:
    """What is wrong with a checkpoint, read byte by byte; nothing if it is whole. Its mark says so from now on.

    Args:
        reader: what reads it, for the mark.
    """
    problems = verify_files(manifest, folder, hashes=True)
    with suppress(OSError):  # somebody else's folder, or one that cannot be written to: the answer is told all the same
        if problems:
            mark_damaged(folder, "; ".join(problems))
        else:
            mark_verified(folder, reader)
    return problems


def mark_verified(folder: Path, reader: str) -> None:
    """Put on record that every byte was read back and hashed as the manifest says; `reader` says by what."""
    _write(folder / VERIFIED, f"read back by {reader}")
    (folder / DAMAGED).unlink(missing_ok=True)


def mark_damaged(folder: Path, problems: str) -> None:
    """Put on record what is wrong with a checkpoint: it counts for nothing any more, and is left as it is."""
    _write(folder / DAMAGED, problems)
    (folder / VERIFIED).unlink(missing_ok=True)


def is_damaged(folder: Path) -> bool:
    """Whether a checkpoint was found damaged when it was read last."""
    return lexists(folder / DAMAGED)


def damage_of(folder: Path) -> Mark | None:
    """What was found wrong with a checkpoint when it was read last, if anything was."""
    return _read(folder / DAMAGED)


def is_verified(folder: Path) -> bool:
    """Whether a checkpoint was read back and found whole."""
    return is_file(folder / VERIFIED)


def verification_of(folder: Path) -> Mark | None:
    """When a checkpoint was last read back and found whole; None where it never was."""
    return _read(folder / VERIFIED)


def _write(path: Path, reason: str) -> None:
    mark = Mark(reason, datetime.now(UTC).isoformat(timespec="seconds"))
    write_atomically(path, (json.dumps(asdict(mark), indent=2) + "\n").encode())


def _read(path: Path) -> Mark | None:
    try:
        content = parse_object(read_bounded(path, _BYTES), printable(path))
    except Missing:
        return None
    except TrainyardError as error:
        raise Damaged(f"{printable(path)} is no mark of a checkpoint ({error}); remove the file or repair it") from None
    reason, date = content.get("reason"), content.get("date")
    if not isinstance(reason, str) or not isinstance(date, str):
        raise Damaged(f"{printable(path)} is no mark of a checkpoint; remove the file or repair it")
    return Mark(reason, date)
