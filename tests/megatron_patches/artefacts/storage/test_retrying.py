"""Which kind of store an address opens, and how its requests are tried again."""

from pathlib import Path

import pytest

from megatron_patches.artefacts.location import SCHEMES, Location, parse_location
from megatron_patches.artefacts.storage.file import FolderStore
from megatron_patches.artefacts.storage.open import open_store, store_class
from megatron_patches.artefacts.storage.retrying import Retries, RetryingStore
from megatron_patches.artefacts.storage.store import (
    AccessRefused,
    DamagedCopy,
    StorageUnavailable,
    Store,
    TransferDiffers,
    TransientFailure,
)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_has_a_kind(scheme: str) -> None:
    assert issubclass(store_class(scheme), Store)
    assert parse_location(SCHEMES[scheme]).scheme == scheme


def test_the_store_of_a_location(tmp_path: Path) -> None:
    store = open_store(parse_location(f"file://{tmp_path}/remote"))
    store.write("a/b", b"content")
    assert store.read("a/b") == b"content"
    assert store.credentials().startswith("file permissions")


def test_every_request_is_tried_again() -> None:
    asks_nothing = {"package", "at"}
    assert {name for name in vars(Store) if not name.startswith("_")} - asks_nothing <= vars(RetryingStore).keys()


def test_pauses_grow_and_what_will_not_pass_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: FolderStore, path: str) -> None:
        asked.append(path)
        raise {"secret": AccessRefused, "garbled": TransferDiffers}.get(path, TransientFailure)(path)

    asked: list[str] = []
    pauses: list[float] = []
    monkeypatch.setattr(FolderStore, "read", fails)
    monkeypatch.setattr("megatron_patches.artefacts.storage.retrying.time.sleep", pauses.append)
    store = RetryingStore(FolderStore(Location("file", "/nowhere")), Retries(tries=8, pause=1.0))
    with pytest.raises(AccessRefused):
        store.read("secret")
    assert (asked, pauses) == (["secret"], [])
    with pytest.raises(StorageUnavailable, match="busy, at each of 8 tries"):
        store.read("busy")
    assert len(asked) == 9
    for pause, longest in zip(pauses, [1, 2, 4, 8, 16, 30, 30], strict=True):
        assert longest / 2 <= pause <= longest
    with pytest.raises(DamagedCopy, match="garbled, at each of 8 tries"):
        store.read("garbled")
