"""What every storage can do; one module for each scheme does it."""

import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.storage.meter import Meter
from megatron_patches.errors import TrainyardError

_NEEDS = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}


class TransientFailure(Exception):
    """Something that may go better at the next try: a connection that broke, a server that was busy."""


class DamagedSource(TrainyardError):
    """A file that is to be copied is not what its manifest says."""


class VanishedSource(Exception):
    """A file that is to be copied was removed meanwhile."""


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
    """what the storage itself says of the content: sha256, md5, git"""


class Store(ABC):
    """One location. Paths are relative to it, with forward slashes. Methods may be called from several threads.

    Every method raises `TransientFailure` for what is worth another try, and TrainyardError for what is not.
    """

    def __init__(self, location: Location) -> None:
        self.location = location

    @abstractmethod
    def entries(self, folder: str) -> dict[str, Entry]:
        """Every file beneath a folder by its path from there; empty where there is none."""

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """A small file; None where there is none."""

    @abstractmethod
    def write(self, path: str, content: bytes) -> None:
        """A small file, whole or not at all."""

    @abstractmethod
    def send(self, upload: Upload, path: str, meter: Meter) -> None:
        """Copies a file there. It appears whole or not at all, and was compared before this returns, or by `settle`."""

    @abstractmethod
    def receive(self, path: str, target: BinaryIO, meter: Meter) -> None:
        """Copies a file from there."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Removes a file, if it is there."""

    @abstractmethod
    def matches(self, path: str, entry: Entry, upload: Upload) -> bool:
        """Whether a file there has the content of one here, by the storage's own evidence, or by reading it."""

    @abstractmethod
    def sha256(self, path: str, entry: Entry) -> tuple[str, str]:
        """Hash of a file there and how it is known: as the storage states it, or from reading the file."""

    def settle(self, folder: str) -> None:
        """Makes everything that was sent to a folder appear; storages where that happened already do nothing."""
        return

    @abstractmethod
    def credentials(self) -> str:
        """Where the client found its credentials, never what they are; and whether they open the location."""


def open_store(location: Location) -> Store:
    """The storage of a location; its client is imported now.

    Raises:
        TrainyardError: the client is not installed.
    """
    if (package := _NEEDS.get(location.scheme)) and importlib.util.find_spec(package) is None:
        raise TrainyardError(
            f"{location}: {location.scheme}:// needs {package}, which the extra `storage` brings: "
            "pip install -c constraints.txt -e .[storage]"
        )
    if location.scheme == "file":
        from megatron_patches.artefacts.storage.file import FolderStore

        return FolderStore(location)
    if location.scheme == "s3":
        from megatron_patches.artefacts.storage.s3 import S3Store

        return S3Store(location)
    if location.scheme == "gs":
        from megatron_patches.artefacts.storage.gs import GoogleStore

        return GoogleStore(location)
    from megatron_patches.artefacts.storage.hf import HubStore

    return HubStore(location)
