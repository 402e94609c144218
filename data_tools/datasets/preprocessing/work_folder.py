"""`PREFIX.unfinished`: what a dataset in making has written, its journal, and the lock against a second maker."""

import errno
import fcntl
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_tools.datasets.indexed_dataset_format import appended, bin_path, idx_path
from data_tools.datasets.manifest import manifest_path
from data_tools.datasets.preprocessing.notes import VERSION, Note
from megatron_patches.atomic_files import TEMPORARY, write_atomically
from megatron_patches.errors import Damaged, Refused
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_json
from megatron_patches.foreign.printable import printable, shortened

SECONDS = 5.0
"""of work that a kill loses at most, unless what it takes to write the journal asks for longer pauses"""
SHARE = 0.05
"""of the time that writing it may take: files must be on the disk before it"""
ENDING = ".unfinished"
LARGEST_JOURNAL = 1 << 30
_LOCK, _JOURNAL = "lock", "journal.json"
_RANDOM = re.compile(rf"\.[0-9a-f]{{16}}{re.escape(TEMPORARY)}\Z")
_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)


class WorkFolder:
    """The folder of unfinished files beside a dataset, while this process holds its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = path / _JOURNAL

    def read_note(self) -> Note | None:
        """What an earlier process noted; None where there is nothing to go on from.

        Raises:
            Damaged: the journal is not as it was written, or of another version.
        """
        if not self._journal.exists():
            return None
        content = parse_json(read_bounded(self._journal, LARGEST_JOURNAL), printable(self._journal))
        version = content.get("version") if isinstance(content, dict) else None
        if version != VERSION:
            raise Damaged(
                f"{printable(self._journal)} is of version {shortened(version)}, this one goes on from {VERSION}; add "
                "--overwrite to start from the beginning"
            )
        try:
            return Note.model_validate(content)
        except ValueError as error:
            raise Damaged(
                f"{printable(self._journal)} is no journal of preprocessing ({shortened(error)}); add --overwrite to "
                "start from the beginning"
            ) from None

    def has_journal(self) -> bool:
        """Whether there is anything to go on from."""
        return self._journal.exists()

    def write_note(self, note: Note) -> None:
        """Replaces the journal; what it speaks of must be on the disk."""
        write_atomically(self._journal, note.model_dump_json().encode())

    def clear(self) -> None:
        """Removes everything but the lock."""
        for path in self.path.iterdir():
            if path.name != _LOCK:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def remove(self) -> None:
        """Removes the folder; the journal first, so that a kill in between leaves nothing to go on from."""
        self._journal.unlink(missing_ok=True)
        shutil.rmtree(self.path)

    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in self.path.iterdir())


class Journal:
    """Writes a note into the work folder now and then."""

    def __init__(self, work: WorkFolder, note: Note) -> None:
        self._work = work
        self._note = note
        self._next = time.monotonic() + SECONDS

    def keep(self, update: Callable[[], None]) -> None:
        """Writes the note if it is time to.

        Args:
            update: brings it up to date, and everything it speaks of onto the disk.
        """
        if time.monotonic() >= self._next:
            self.write(update)

    def write(self, update: Callable[[], None] = lambda: None) -> None:
        """Writes the note."""
        started = time.monotonic()
        update()
        self._work.write_note(self._note)
        ended = time.monotonic()
        self._next = ended + max(SECONDS, (ended - started) / SHARE)


@contextmanager
def locked_folder(output: Path) -> Iterator[WorkFolder]:
    """The work folder of a dataset, made where there is none. The lock goes with the process, however that ends; forked
    workers do not have it.

    Raises:
        Refused: another process makes this dataset.
    """
    path = appended(output, ENDING)
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue  # the process that had it removed the folder in between
        try:
            _lock(descriptor, path)
            if not _still_there(descriptor, path / _LOCK):
                continue
            yield WorkFolder(path)
            return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:  # such as Lustre mounted with noflock: as before there were locks
            return
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
        raise Refused(
            f"{printable(holder)} is making this dataset (it holds {printable(path / _LOCK)}); wait for it, or choose "
            "another --output"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)


def _still_there(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def remove_leftovers(prefixes: Iterable[Path]) -> None:
    """Removes temporary files that killed processes left of these datasets; to be called under the lock."""
    for prefix in prefixes:
        for path in (bin_path(prefix), idx_path(prefix), manifest_path(prefix)):
            if not path.parent.is_dir():
                continue
            for other in path.parent.iterdir():
                if other.name.startswith(path.name) and _RANDOM.fullmatch(other.name[len(path.name) :]):
                    other.unlink(missing_ok=True)
