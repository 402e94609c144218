"""A store whose calls are tried again while they fail in a way that may pass."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from megatron_patches.artefacts.manifest import FileRecord
from megatron_patches.artefacts.storage.meter import Meter
from megatron_patches.artefacts.storage.store import (
    BoundedFile,
    DamagedCopy,
    Entry,
    StorageUnavailable,
    Store,
    TransferDiffers,
    TransientFailure,
    Upload,
)

_LONGEST_PAUSE = 30.0
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Retries:
    """How often a request is tried."""

    tries: int = 5
    """of each request"""
    pause: float = 0.5
    """seconds before the second try; doubled before each further one"""


DEFAULT_RETRIES = Retries()


class RetryingStore(Store):
    """Another store, each request of which is tried several times, after growing pauses.

    Where that store raises a TransientFailure at every try, this one raises `StorageUnavailable`, or `DamagedCopy` if
    the bytes differed at the last one.
    """

    def __init__(self, store: Store, retries: Retries = DEFAULT_RETRIES) -> None:
        super().__init__(store.location)
        self._store = store
        self._retries = retries

    def entries(self, prefix: str) -> dict[str, Entry]:
        return self._retry(lambda: self._store.entries(prefix))

    def read(self, path: str) -> bytes | None:
        return self._retry(lambda: self._store.read(path))

    def write(self, path: str, content: bytes) -> None:
        self._retry(lambda: self._store.write(path, content))

    def send(self, upload: Upload, path: str, meter: Meter) -> None:
        self._retry(lambda: self._store.send(upload, path, meter))

    def commit(self, prefix: str) -> None:
        self._retry(lambda: self._store.commit(prefix))

    def receive(self, path: str, target: BoundedFile, meter: Meter) -> None:
        self._retry(lambda: self._store.receive(path, target, meter))

    def fetch(self, path: str, target: Path, expected: FileRecord, meter: Meter) -> None:
        self._retry(lambda: self._store.fetch(path, target, expected, meter))

    def delete(self, path: str) -> None:
        self._retry(lambda: self._store.delete(path))

    def matches(self, path: str, entry: Entry, upload: Upload) -> bool:
        return self._retry(lambda: self._store.matches(path, entry, upload))

    def sha256(self, path: str, entry: Entry) -> str:
        return self._retry(lambda: self._store.sha256(path, entry))

    def credentials(self) -> str:
        """Asked for once: a person waits to hear whether the location answers."""
        return self._store.credentials()

    def _retry(self, request: Callable[[], _Value]) -> _Value:
        tries = self._retries.tries
        arrived: str | None = None
        for attempt in range(1, tries + 1):
            try:
                return request()
            except TransientFailure as failure:
                differs = isinstance(failure, TransferDiffers)
                found = failure.arrived if isinstance(failure, TransferDiffers) else None
                if found is not None and found == arrived:  # the same twice: no accident
                    raise DamagedCopy(
                        f"{failure}, at each of {attempt} tries, and always the same: restore it there, or sync it "
                        "again with --replace"
                    ) from failure
                if attempt == tries:
                    raise (DamagedCopy if differs else StorageUnavailable)(
                        f"{failure}, at each of {attempt} tries; look at the connection, then sync again: it goes on "
                        "where it stopped"
                    ) from failure
                arrived = found
                longest = min(_LONGEST_PAUSE, self._retries.pause * 2 ** (attempt - 1))
                time.sleep(longest * random.uniform(0.5, 1.0))
        raise AssertionError("there is at least one try")
