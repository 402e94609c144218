"""What every kind of storage can do, and how it fails; `open.py` picks the kind by an address's scheme."""

import errno
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar

from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.manifest import FileRecord
from megatron_patches.artefacts.storage.meter import Meter
from megatron_patches.atomic_files import create_file, hash_file, temporary_path
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.credentials import without_credentials
from megatron_patches.foreign.printable import printable, shortened

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
MOST_ENTRIES = 2_000_000
"""files beneath a prefix that are listed; a run of 1,000 checkpoints of 1,000 ranks has one million"""


class TransientFailure(Exception):
    """Something that may go better at the next try: a connection that broke, a server that was busy."""


class TransferDiffers(TransientFailure):
    """The bytes that arrived are not those that were to be copied: the next try may bring the right ones.

    Args:
        arrived: hash of what arrived, where it is known: the same twice is no accident of the line.
    """

    def __init__(self, message: str, arrived: str | None = None) -> None:
        super().__init__(message)
        self.arrived = arrived


class VanishedSource(Exception):
    """A file that is to be copied was removed meanwhile."""


class DamagedSource(TrainyardError):
    """A file that is to be copied is not what its manifest says."""


class DamagedCopy(TrainyardError):
    """A file at a location is not what its manifest says."""


class NotThere(TrainyardError):
    """A bucket, an artefact or a file is missing at a location."""


class AnotherArtefact(TrainyardError):
    """Where an artefact is to lie, lies another one."""


class AccessRefused(TrainyardError):
    """Credentials are missing, unknown or expired, or do not allow what was asked for."""


class TooManyEntries(TrainyardError):
    """A location lists more files than a run can have."""


class StorageFull(TrainyardError):
    """A location has no space left."""


class StorageUnavailable(TrainyardError):
    """A location failed at every try."""


class BoundedFile:
    """An open file that takes no more bytes than were promised: what comes from a location may go on for ever.

    What fails here is no failure of the location, and is not tried again: a file there that is larger than was said,
    a disk here that is full.
    """

    def __init__(self, target: BinaryIO, limit: int, origin: str) -> None:
        self._target = target
        self._limit = limit
        self._origin = printable(origin)

    def write(self, content: bytes) -> None:
        """Appends all of the bytes, or none.

        Raises:
            DamagedCopy: they are more than were promised.
            StorageFull: the disk here is full.
            TrainyardError: it cannot be written to.
        """
        if self._target.tell() + len(content) > self._limit:
            raise DamagedCopy(
                f"{self._origin} is larger than the {self._limit:,} bytes that it may have; nothing of it was kept. "
                "Restore it there, or sync it again with --replace"
            )
        try:
            self._target.write(content)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise StorageFull(f"no space for {self._origin}: {error.strerror}; free some, then pull") from None
            raise TrainyardError(f"{self._origin} cannot be written here: {error}") from None

    def position(self) -> int:
        """Bytes from the start."""
        return self._target.tell()

    def cut(self, position: int) -> None:
        """Takes back what was written behind a position."""
        self._target.seek(position)
        self._target.truncate()


@dataclass(frozen=True)
class Upload:
    """A file to copy, and what its copy must be."""

    local: Path
    size: int
    """bytes; of a file that grows, the first so many"""
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A file at a storage."""

    size: int
    evidence: dict[str, str] = field(default_factory=dict)
    """what the storage itself states of the content: sha256, md5, git"""


def joined(*parts: str) -> str:
    """A path or a prefix within a location, of parts of which some may be empty: the root has none."""
    return "/".join(part for part in parts if part)


class Store(ABC):
    """One location. Paths are relative to it, with forward slashes; a prefix is a path, or empty for the location's
    root. Methods may be called from several threads.

    Each method may be called again after it failed. It raises `TransientFailure` for what is worth another try, and a
    TrainyardError for what is not: `NotThere`, `AccessRefused`, `StorageFull`, `DamagedCopy` or `DamagedSource`.
    """

    package: ClassVar[str | None] = None
    """the client library, of the extra `storage`"""

    def __init__(self, location: Location) -> None:
        self.location = location

    def at(self, *parts: str) -> str:
        """The address of what lies in it, for messages."""
        return joined(str(self.location), *parts)

    @abstractmethod
    def entries(self, prefix: str) -> dict[str, Entry]:
        """Every file beneath a prefix by its path from there; empty where there is none.

        Raises:
            TooManyEntries: there are more than `MOST_ENTRIES`.
        """

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """A small file; None where there is none.

        Raises:
            DamagedCopy: it is larger than `METADATA_BYTES`, or no plain file.
        """

    @abstractmethod
    def write(self, path: str, content: bytes) -> None:
        """A small file, whole or not at all."""

    @abstractmethod
    def send(self, upload: Upload, path: str, meter: Meter) -> None:
        """Copies a file there. It appears whole or not at all, and is compared before this returns, or by `commit`.

        Raises:
            VanishedSource: it was removed here meanwhile.
        """

    def commit(self, prefix: str) -> None:
        """Makes everything that was sent beneath a prefix appear, and durable; some storages did that already."""
        return

    @abstractmethod
    def receive(self, path: str, target: BoundedFile, meter: Meter) -> None:
        """Appends a file from there to an open one. After a TransientFailure the target is as it was.

        Raises:
            DamagedCopy: it is larger than the target's bound, or no plain file.
        """

    def fetch(self, path: str, target: Path, expected: FileRecord, meter: Meter) -> None:
        """Copies a file from there. It replaces the target whole, compared and durable, or not at all."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(target)
        try:
            with create_file(temporary) as content:
                self.receive(path, BoundedFile(content, expected.size, f"{self.location}/{path}"), meter)
                content.flush()
                os.fsync(content.fileno())
            arrived = hash_file(temporary)
            if arrived != (expected.sha256, expected.size):
                raise TransferDiffers(f"{self.location}/{path} is damaged, or was cut on the way", arrived[0])
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    @abstractmethod
    def delete(self, path: str) -> None:
        """Removes a file, if it is there."""

    @abstractmethod
    def matches(self, path: str, entry: Entry, upload: Upload) -> bool:
        """Whether a file there has the content of one here, by the storage's own evidence, or by reading it."""

    @abstractmethod
    def sha256(self, path: str, entry: Entry) -> str:
        """Hash of a file there, as the storage states it, or from reading the file."""

    @abstractmethod
    def credentials(self) -> str:
        """Where the client found its credentials, never what they are.

        Raises:
            AccessRefused: there are none, or they do not open the location.
        """


def refuse_more_entries(location: Location, prefix: str, number: int) -> None:
    """Raises TooManyEntries where a listing has grown beyond what a run can have."""
    if number > MOST_ENTRIES:
        raise TooManyEntries(
            f"{location}/{prefix} lists more than {MOST_ENTRIES:,} files; no run has so many: correct the address"
        )


def client_failed(location: Location, error: Exception) -> TrainyardError:
    """What is told of an error that a client has no name for; its text may quote a signed request."""
    said = shortened(without_credentials(str(error)))
    return TrainyardError(
        f"{location}: the client fails with {type(error).__name__}: {said}; correct the address or its settings"
    )
