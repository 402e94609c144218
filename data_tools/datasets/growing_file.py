"""A file that grows from its beginning to its end, hashed on the way, and goes on where a note of its size says."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import Buffer

from megatron_patches.atomic_files import READ_CHUNK_BYTES, create_file
from megatron_patches.errors import Damaged

BUFFER_BYTES = 1 << 20


class GrowingFile:
    """One file, open to be appended to. Nothing but `discard` removes it: what was noted of it outlives every error.

    Args:
        size: bytes of the file that is there, which are kept and hashed; what lies after them is cut off. 0 makes a
            new file, and removes what has its path.

    Raises:
        Damaged: the file has fewer bytes.
        OSError: the folder is missing or may not be written to.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        self.size = size
        """bytes written so far"""
        self._digest = hashlib.sha256()
        if size:
            self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._keep(size)
        else:
            path.unlink(missing_ok=True)
            with create_file(path) as file:
                self._descriptor = os.dup(file.fileno())
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def _keep(self, size: int) -> None:
        there = os.fstat(self._descriptor).st_size
        if there < size:
            os.close(self._descriptor)
            raise Damaged(
                f"{self.path} has {there:,} bytes, {size:,} were noted: it was changed; add --overwrite to start again"
            )
        os.ftruncate(self._descriptor, size)
        while (at := os.lseek(self._descriptor, 0, os.SEEK_CUR)) < size:
            self._digest.update(os.read(self._descriptor, min(READ_CHUNK_BYTES, size - at)))

    @property
    def sha256(self) -> str:
        """Hash of the bytes written so far, 64 hexadecimal digits."""
        return self._digest.hexdigest()

    def write(self, content: Buffer) -> None:
        """Appends the bytes of a contiguous buffer.

        Raises:
            OSError: the disk is full; names the file.
        """
        if memoryview(content).nbytes == 0:
            return  # a view without elements cannot be cast to bytes
        with memoryview(content).cast("B") as octets:
            self._digest.update(octets)
            self.size += octets.nbytes
            if octets.nbytes < BUFFER_BYTES:
                self._waiting.append(bytes(octets))
                self._waiting_bytes += octets.nbytes
            else:
                self.flush()
                self._write(octets)
        if self._waiting_bytes >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hands everything to the system, so that readers of the file see it."""
        content, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
        self._write(memoryview(content))

    def _write(self, octets: memoryview) -> None:
        with named(self.path):
            while octets:
                octets = octets[os.write(self._descriptor, octets) :]

    def sync(self) -> None:
        """Puts everything on the disk."""
        self.flush()
        with named(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Closes it as it is; what waits to be written is dropped, which `sync` before it prevents."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def discard(self) -> None:
        """Removes the file."""
        self.close()
        self.path.unlink(missing_ok=True)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Errors of the system name the file, as those of a descriptor do not."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        full = "; free space there, then start again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise OSError(error.errno, f"{error.strerror}{full}", str(path)) from error
