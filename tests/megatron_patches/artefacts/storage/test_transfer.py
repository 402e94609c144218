"""One artefact to a folder and back: what is missing travels, manifest last; nothing half is taken for whole."""

import json
import os
import threading
from pathlib import Path

import pytest

from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.manifest import Manifest, Status, read_manifest
from megatron_patches.artefacts.storage import file as file_module
from megatron_patches.artefacts.storage.fetch import fetch_artefact
from megatron_patches.artefacts.storage.file import FolderStore
from megatron_patches.artefacts.storage.loose import fetch_loose, send_loose
from megatron_patches.artefacts.storage.meter import Meter
from megatron_patches.artefacts.storage.packing import TAR
from megatron_patches.artefacts.storage.retrying import Retries, RetryingStore
from megatron_patches.artefacts.storage.store import (
    AccessRefused,
    AnotherArtefact,
    DamagedCopy,
    DamagedSource,
    NotThere,
    StorageFull,
    StorageUnavailable,
    Store,
    TransientFailure,
    Upload,
)
from megatron_patches.artefacts.storage.transfer import Options, check_artefact, send_artefact
from megatron_patches.artefacts.unfinished import PULLING
from megatron_patches.errors import TrainyardError
from tests.small_artefacts import RUN, make_checkpoint

PREFIX = "checkpoints/step-0000000100"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return folder_store(tmp_path / "remote")


def folder_store(folder: Path, tries: int = 5) -> Store:
    return RetryingStore(FolderStore(Location("file", str(folder))), Retries(tries, pause=0.001))


def options(**more: object) -> Options:
    return Options(meter=Meter(), **more)  # type: ignore[arg-type]


def there(tmp_path: Path) -> list[str]:
    root = tmp_path / "remote"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_there_and_back(tmp_path: Path, store: Store, manifest: Manifest, folder: Path) -> None:
    sent = send_artefact(store, PREFIX, manifest, folder, options())
    assert (sent.result, sent.files, sent.size) == ("sent", 6, sum(file.size for file in manifest.files))
    assert check_artefact(store, PREFIX, manifest.id) == []
    fetched = fetch_artefact(store, PREFIX, manifest, tmp_path / "back", options())
    assert fetched.result == "fetched"
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_a_second_sync_moves_nothing(store: Store, manifest: Manifest, folder: Path) -> None:
    send_artefact(store, PREFIX, manifest, folder, options())
    second = options()
    assert send_artefact(store, PREFIX, manifest, folder, second).result == "present"
    assert second.meter.moved == 0


def test_an_interrupted_sync_goes_on(
    tmp_path: Path, store: Store, manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def dies(self: FolderStore, upload: Upload, path: str, meter: Meter) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        real(self, upload, path, meter)

    real = FolderStore.send
    monkeypatch.setattr(FolderStore, "send", dies)
    with pytest.raises(KeyboardInterrupt):
        send_artefact(store, PREFIX, manifest, folder, options(parallel=1))
    assert f"{PREFIX}/manifest.json" not in there(tmp_path)
    monkeypatch.setattr(FolderStore, "send", real)
    assert 0 < send_artefact(store, PREFIX, manifest, folder, options()).files < 4
    assert check_artefact(store, PREFIX, manifest.id) == []


def test_a_file_of_the_right_size_without_manifest_is_compared(
    tmp_path: Path, store: Store, manifest: Manifest, folder: Path
) -> None:
    send_artefact(store, PREFIX, manifest, folder, options())
    remote = tmp_path / "remote" / PREFIX
    (remote / "manifest.json").unlink()
    (remote / "weights-00000.safetensors").write_bytes(b"x" * 2000)
    assert send_artefact(store, PREFIX, manifest, folder, options()).files == 1
    assert check_artefact(store, PREFIX, manifest.id) == []


def test_a_file_lost_there_is_sent_again(tmp_path: Path, store: Store, manifest: Manifest, folder: Path) -> None:
    send_artefact(store, PREFIX, manifest, folder, options())
    (tmp_path / "remote" / PREFIX / "config.yaml").unlink()
    assert len(check_artefact(store, PREFIX, manifest.id)) == 1
    assert send_artefact(store, PREFIX, manifest, folder, options()).files == 1


def test_damage_there_is_found_by_a_check(tmp_path: Path, store: Store, manifest: Manifest, folder: Path) -> None:
    send_artefact(store, PREFIX, manifest, folder, options())
    (tmp_path / "remote" / PREFIX / "weights-00001.safetensors").write_bytes(b"x" * 2000)
    (problem,) = check_artefact(store, PREFIX, manifest.id)
    assert "weights-00001.safetensors has sha256" in problem
    with pytest.raises(DamagedCopy, match="damaged, or was cut on the way, at each of 2 tries"):
        fetch_artefact(folder_store(tmp_path / "remote", 2), PREFIX, manifest, tmp_path / "back", options())
    assert not (tmp_path / "back").exists()


def test_a_damaged_file_here_is_not_copied(tmp_path: Path, store: Store, manifest: Manifest, folder: Path) -> None:
    (folder / "weights-00000.safetensors").write_bytes(b"x" * 2000)
    with pytest.raises(DamagedSource, match="not what its manifest says"):
        send_artefact(store, PREFIX, manifest, folder, options())
    assert f"{PREFIX}/manifest.json" not in there(tmp_path)


def test_a_copy_that_differs_is_made_again(
    store: Store, manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, broken = file_module._move, [True]

    def flips(source: int, copy: int, offset: int, size: int) -> int:
        moved = real(source, copy, offset, size)
        if broken.pop() if broken else False:
            os.pwrite(copy, b"\xff\x00\xff", 0)
        return moved

    monkeypatch.setattr(file_module, "_move", flips)
    assert send_artefact(store, PREFIX, manifest, folder, options()).result == "sent"
    assert check_artefact(store, PREFIX, manifest.id) == []


def test_another_artefact_is_not_written_over(tmp_path: Path, store: Store, manifest: Manifest, folder: Path) -> None:
    send_artefact(store, PREFIX, manifest, folder, options())
    other = make_checkpoint(tmp_path / "other", 100, seed=8)
    with pytest.raises(AnotherArtefact, match="--replace"):
        send_artefact(store, PREFIX, other, tmp_path / "other" / RUN / PREFIX, options())
    send_artefact(store, PREFIX, other, tmp_path / "other" / RUN / PREFIX, options(replace=True))
    assert check_artefact(store, PREFIX, other.id) == []


def test_a_change_of_status_travels(tmp_path: Path, store: Store, manifest: Manifest, folder: Path) -> None:
    send_artefact(store, PREFIX, manifest, folder, options())
    marked = manifest.model_copy(update={"status": Status(state="invalid", reason="a leak", date="2026-01-01")})
    assert send_artefact(store, PREFIX, marked, folder, options()).result == "status renewed"
    assert read_manifest(tmp_path / "remote" / PREFIX / "manifest.json").status.reason == "a leak"


def test_many_small_files_travel_as_one(tmp_path: Path, store: Store, manifest: Manifest, folder: Path) -> None:
    send_artefact(store, PREFIX, manifest, folder, options(pack_below=1000))
    assert there(tmp_path) == sorted(
        [f"{PREFIX}/{name}" for name in (TAR, "packed.json", "manifest.json")]
        + [f"{PREFIX}/{part}-0000{rank}.safetensors" for part in ("weights", "optimizer") for rank in (0, 1)]
    )
    assert send_artefact(store, PREFIX, manifest, folder, options(pack_below=1000)).result == "present"
    assert check_artefact(store, PREFIX, manifest.id) == []
    fetch_artefact(store, PREFIX, manifest, tmp_path / "back", options())
    assert (tmp_path / "back" / "config.yaml").read_bytes() == (folder / "config.yaml").read_bytes()
    (tmp_path / "remote" / PREFIX / TAR).write_bytes(b"x" * (tmp_path / "remote" / PREFIX / TAR).stat().st_size)
    assert len(check_artefact(store, PREFIX, manifest.id)) == 1


def test_two_writers_at_once(store: Store, manifest: Manifest, folder: Path) -> None:
    failed: list[BaseException] = []

    def send() -> None:
        try:
            for _ in range(5):
                send_artefact(store, PREFIX, manifest, folder, options())
                store.delete(f"{PREFIX}/config.yaml")
        except NotThere:
            pass  # the other one removed the file between its copy and the look at all of them
        except TrainyardError as error:
            failed.append(error)

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    send_artefact(store, PREFIX, manifest, folder, options())
    assert check_artefact(store, PREFIX, manifest.id) == []


def test_a_full_disk_says_so_and_leaves_nothing_half(
    tmp_path: Path, store: Store, manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_module, "_move", full)
    with pytest.raises(StorageFull, match="No space left on device; free space"):
        send_artefact(store, PREFIX, manifest, folder, options())
    assert there(tmp_path) == []


def test_no_permission(tmp_path: Path, manifest: Manifest, folder: Path) -> None:
    (tmp_path / "file").touch()
    store = folder_store(tmp_path / "file")
    with pytest.raises(AccessRefused, match="name another location"):
        send_artefact(store, PREFIX, manifest, folder, options())


def test_it_gives_up_after_so_many_tries(
    tmp_path: Path, manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    def fails(*_: object) -> None:
        nonlocal tried
        tried += 1
        raise TransientFailure("the line is dead")

    monkeypatch.setattr(FolderStore, "entries", fails)
    with pytest.raises(StorageUnavailable, match="the line is dead, at each of 3 tries"):
        send_artefact(folder_store(tmp_path / "remote", 3), PREFIX, manifest, folder, options())
    assert tried == 3


@pytest.mark.parametrize("suffix", [PULLING, ".pull.partial"])
def test_an_interrupted_pull_goes_on(
    suffix: str, tmp_path: Path, store: Store, manifest: Manifest, folder: Path
) -> None:
    send_artefact(store, PREFIX, manifest, folder, options())
    partial = tmp_path / f"back{suffix}"
    partial.mkdir()
    (partial / "weights-00000.safetensors").write_bytes((folder / "weights-00000.safetensors").read_bytes())
    (partial / "weights-00001.safetensors").write_bytes(b"half")
    (partial / "weights-00001.safetensors.abcd.partial").write_bytes(b"half")
    fetched = fetch_artefact(store, PREFIX, manifest, tmp_path / "back", options())
    assert fetched.files == 5
    assert {path.name for path in (tmp_path / "back").iterdir()} == {path.name for path in folder.iterdir()}
    assert not list(tmp_path.glob("back.*"))
    assert fetch_artefact(store, PREFIX, manifest, tmp_path / "back", options()).result == "present"


def test_an_edited_manifest_there_is_refused(tmp_path: Path, store: Store, manifest: Manifest, folder: Path) -> None:
    send_artefact(store, PREFIX, manifest, folder, options())
    path = tmp_path / "remote" / PREFIX / "manifest.json"
    content = json.loads(path.read_text())
    content["facts"]["step"] = 7
    path.write_text(json.dumps(content))
    with pytest.raises(TrainyardError, match="changed after it was written"):
        check_artefact(store, PREFIX, manifest.id)


def test_bandwidth_is_kept(store: Store, manifest: Manifest, folder: Path) -> None:
    import time

    started = time.monotonic()
    send_artefact(store, PREFIX, manifest, folder, Options(meter=Meter(bytes_per_second=20_000)))
    assert time.monotonic() - started > 0.3  # 8 kB


def test_growing_logs(tmp_path: Path, store: Store) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "0001.log").write_text("one\n")
    (logs / "0002.log").write_text("two\n")

    def send() -> int:
        return send_loose(store, "logs", logs, sorted(logs.iterdir()), options()).files

    assert [send(), send()] == [2, 0]
    (logs / "0002.log").write_text("two\nthree\n")
    assert send() == 1
    assert fetch_loose(store, "logs", tmp_path / "back", options()).files == 2
    assert (tmp_path / "back" / "0002.log").read_text() == "two\nthree\n"
    (tmp_path / "back" / "0002.log").write_text("two\nthree\nfour\n")  # it has grown here since: it stays
    assert fetch_loose(store, "logs", tmp_path / "back", options()).files == 0
    (tmp_path / "back" / "0001.log").write_text("xxxx")
    with pytest.raises(TrainyardError, match="differs from its copy"):
        fetch_loose(store, "logs", tmp_path / "back", options())


def test_a_shorter_log_that_is_another_one_stays(tmp_path: Path, store: Store) -> None:
    logs, back = tmp_path / "logs", tmp_path / "back"
    logs.mkdir()
    back.mkdir()
    (logs / "0001.log").write_text("one\ntwo\n")
    send_loose(store, "logs", logs, [logs / "0001.log"], options())
    (back / "0001.log").write_text("mine\n")
    with pytest.raises(TrainyardError, match="differs from its copy"):
        fetch_loose(store, "logs", back, options())
    assert [(path.name, path.read_text()) for path in back.iterdir()] == [("0001.log", "mine\n")]
    (back / "0001.log").write_text("one\n")
    assert fetch_loose(store, "logs", back, options()).files == 1
    assert (back / "0001.log").read_text() == "one\ntwo\n"
