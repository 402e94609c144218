"""A file's bytes as they are stored, hashed while they pass or beside other work."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from data_tools.reading.block import PartContent
from data_tools.reading.documents import BLOCK_BYTES


class StoredFile(io.FileIO):
    """A file that is read from one end to the other."""

    def __init__(self, path: Path, hashed: bool = False) -> None:
        super().__init__(path, "rb")
        self._hash = hashlib.sha256() if hashed else None
        self._hashed = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self._hash is not None and data:
            self._hash.update(data)
            self._hashed += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        if self._hash is not None and count:
            self._hash.update(memoryview(buffer).cast("B")[:count])
            self._hashed += count
        return count

    def content(self) -> PartContent:
        """Hash of the bytes that were read, which must have been hashed."""
        assert self._hash is not None
        return PartContent(self._hashed, self._hash.hexdigest())

    def read_on(self, end: int | None = None) -> None:
        """Hashes what follows, up to a byte or to the file's end."""
        while data := self.read(BLOCK_BYTES if end is None else max(0, min(BLOCK_BYTES, end - self.tell()))):
            del data


@contextmanager
def hashing(path: Path, first: int, end: int) -> Iterator["Hashing"]:
    """Hashes a stretch of a file's bytes in a thread, which ends with the block."""
    beside = Hashing(path, first, end)
    beside.start()
    try:
        yield beside
    finally:
        beside.stopped.set()
        beside.join()


class Hashing(Thread):
    """Hashes a stretch of a file's bytes; hashlib lets other threads work."""

    def __init__(self, path: Path, first: int, end: int) -> None:
        super().__init__(daemon=True)
        self.stopped = Event()
        self._path, self._first, self._end = path, first, end
        self._content: PartContent | None = None
        self._error: OSError | None = None

    def run(self) -> None:
        try:
            with StoredFile(self._path, hashed=True) as file:
                file.seek(self._first)
                while not self.stopped.is_set() and file.read(max(0, min(BLOCK_BYTES, self._end - file.tell()))):
                    pass
                self._content = file.content()
        except OSError as error:
            self._error = error

    def content(self) -> PartContent:
        """Waits until all is read.

        Raises:
            OSError: the file cannot be read.
        """
        self.join()
        if self._error is not None:
            raise self._error
        assert self._content is not None
        return self._content
