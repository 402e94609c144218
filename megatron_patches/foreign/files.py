"""Small files that others may have written: read within a bound, and only where they are plain files."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from megatron_patches.errors import Damaged, Missing, Refused
from megatron_patches.foreign.printable import printable

METADATA_BYTES = 64 << 20
"""maximum for manifests, notes, configurations: the manifest of a run of 1,000 ranks has about 1 MB"""


def read_bounded(path: Path, limit: int = METADATA_BYTES) -> bytes:
    """The bytes of a plain file; nothing is waited for, and no more than `limit` bytes are read.

    Args:
        limit: largest size in bytes that is read.

    Raises:
        Missing: there is no such file.
        Damaged: it is larger than `limit`.
        Refused: it is a folder, pipe, socket or device, or may not be read.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        # a sparse file of any size costs nothing, and a small one no buffer of the limit's size
        content = file.read(size + 1) if size <= limit else b""
    if max(size, len(content)) > limit:
        raise Damaged(f"{printable(path)} has {size:,} bytes; at most {limit:,} are read of such a file")
    return content


@contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """A plain file opened for reading; nothing is waited for.

    Raises:
        Missing: there is no such file.
        Refused: it is a folder, pipe, socket or device, or may not be read.
    """
    shown = printable(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe without a writer would block
    except FileNotFoundError:
        raise Missing(f"{shown} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if isinstance(error, OSError) and error.errno == errno.ENOTDIR:
            raise Missing(f"{shown} does not exist") from None
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refused(f"{shown} cannot be read: {reason}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "folder" if stat.S_ISDIR(status.st_mode) else "pipe, socket or device"
            raise Refused(f"{shown} is a {kind}, where a file is expected; move it away")
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def is_folder(path: Path) -> bool:
    """Whether a folder lies there. What cannot be looked at is none: a name that no file system takes, such as one of
    300 bytes, or a link to a file system that does not answer.

    `Path.is_dir` fails there, so that one bad link would stop whoever goes through a folder.
    """
    return stat.S_ISDIR(_mode(path))


def is_file(path: Path) -> bool:
    """Whether a plain file lies there; what cannot be looked at is none."""
    return stat.S_ISREG(_mode(path))


def everything_beneath(folder: Path) -> list[Path]:
    """All that lies in a folder and in those in it, sorted; links to folders are named, and not gone into.

    `Path.rglob` of Python before 3.11.4 fails at a link that cannot be looked at.
    """
    return sorted(Path(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files))


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def names_in(folder: Path) -> list[str]:
    """The names of what lies in a folder, sorted; none where there is no folder.

    Raises:
        Refused: it is no folder, or may not be read.
    """
    try:
        return sorted(entry.name for entry in os.scandir(folder))
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise Refused(f"{printable(folder)} is no folder, where one is expected; move it away") from None
    except OSError as error:
        raise Refused(f"{printable(folder)} cannot be read: {error.strerror}") from None
