"""Files that are whole or absent: hashed while written, flushed to the disk, renamed into place."""

import errno
import hashlib
import os
import secrets
import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from typing_extensions import Buffer

READ_CHUNK_BYTES = 1 << 20
TEMPORARY = ".partial"
"""end of the names that `temporary_path` gives"""


class HashingWriter:
    """Writes one file and hashes it on the way; the file is on the disk after a clean exit and gone after an exception.

    Use as a context manager, or call `close` or `discard` where a `with` block does not fit. Whoever needs the old
    content until the end passes a temporary name and renames afterwards. What has the path is removed first: a link
    or another name of somebody's file never leads the bytes elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        """Bytes written so far."""
        self._digest = hashlib.sha256()
        path.unlink(missing_ok=True)
        self._file: BinaryIO = create_file(path)

    @property
    def sha256(self) -> str:
        """Hash of the bytes written so far, 64 hexadecimal digits."""
        return self._digest.hexdigest()

    def write(self, content: Buffer) -> None:
        """Appends the bytes of a contiguous buffer (bytes, memoryview, numpy array).

        Raises:
            OSError: the disk is full or the file cannot be written.
        """
        if memoryview(content).nbytes == 0:
            return  # a view without elements cannot be cast to bytes
        with memoryview(content).cast("B") as octets:
            self._file.write(octets)
            self._digest.update(octets)
            self.size += octets.nbytes

    def close(self) -> None:
        """Flushes the file to the disk; removes it if that fails."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError:
            self.discard()
            raise

    def discard(self) -> None:
        """Removes the file."""
        try:
            self._file.close()
        finally:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()


def temporary_path(path: Path) -> Path:
    """A name in the same folder that no other writer uses, or can foresee; a kill can leave it behind, and it may then
    be deleted.
    """
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY}")


def create_file(path: Path) -> BinaryIO:
    """A new file, open for writing and reading; a link of that name is not followed.

    Raises:
        FileExistsError: something has the name.
        OSError: the folder is missing, or may not be written to.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "w+b")


def append_to(path: Path, buffering: int = -1) -> BinaryIO:
    """A plain file, made where there is none, open to append to it.

    A link is not followed, and a pipe or a device is refused, never waited for: people may put either into a shared
    folder under a name that they foresee.

    Raises:
        OSError: the folder is missing or may not be written to, or something else than a plain file has the name.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise OSError(error.errno, "is a link or a pipe, not a plain file; remove it", str(path)) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a plain file; remove it", str(path))
        return os.fdopen(descriptor, "ab", buffering)
    except BaseException:
        os.close(descriptor)
        raise


def open_plain(path: Path) -> BinaryIO:
    """A plain file, open for reading; a pipe or a device is refused, and never waited for.

    Raises:
        OSError: it is missing, cannot be read, or is no plain file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(kind, "is not a plain file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a small file so that a reader, or a crash, finds the old content or the new one, never a part.

    Raises:
        OSError: the folder is missing or the disk is full; the old file is untouched.
    """
    temporary = temporary_path(path)
    with HashingWriter(temporary) as writer:
        writer.write(content)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def create_once(path: Path, content: bytes) -> bool:
    """Writes a small file unless there is one: of several writers at once one wins, and nothing is replaced.

    It appears whole, but on a file system without hard links, where a reader may find its beginning for an instant.

    Returns:
        Whether this call made it.

    Raises:
        OSError: the folder is missing, cannot be written to, or the disk is full; nothing is left behind.
    """
    temporary = temporary_path(path)
    with HashingWriter(temporary) as writer:
        writer.write(content)
    try:
        path.hardlink_to(temporary)  # unlike a rename it does not replace
    except FileExistsError:
        return False
    except OSError:  # buckets and shared folders that are mounted: EPERM, ENOTSUP, ENOSYS or EMLINK, each by its taste
        if not _create_exclusively(path, content):
            return False
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)
    return True


def _create_exclusively(path: Path, content: bytes) -> bool:
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError:
        return False
    try:
        with file:
            file.write(content)
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def fsync_folder(path: Path) -> None:
    """Makes the names in a folder durable: a rename is on the disk only after its folder is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def drop_from_page_cache(path: Path) -> None:
    """Make the next read of a file that is on the disk come from there; a file system may ignore it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def hash_file(path: Path, limit: int | None = None) -> tuple[str, int]:
    """sha256 (64 hexadecimal digits) of a file, or of its first bytes, and how many bytes that were.

    Args:
        limit: maximum number of bytes to read; None reads the whole file. A smaller result means a shorter file.

    Raises:
        OSError: the file is missing, cannot be read, or is no plain file.
    """
    digest = hashlib.sha256()
    with open_plain(path) as file:
        size = hash_stream(file, digest, limit)
    return digest.hexdigest(), size


def hash_stream(file: BinaryIO, digest: "hashlib._Hash", limit: int | None = None) -> int:
    """Adds the next bytes of an open file to a hash, read in pieces of 1 MiB; the number of bytes.

    Args:
        limit: maximum number of bytes to read; None reads to the end.

    Raises:
        OSError: the file cannot be read.
    """
    size = 0
    while limit is None or size < limit:
        chunk = file.read(READ_CHUNK_BYTES if limit is None else min(READ_CHUNK_BYTES, limit - size))
        if not chunk:
            break
        digest.update(chunk)
        size += len(chunk)
    return size
