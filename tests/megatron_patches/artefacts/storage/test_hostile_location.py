"""A location that somebody else writes to: nothing without bound comes from it, and nothing leaves the run's folder."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.manifest import FileRecord, Manifest, build_manifest
from megatron_patches.artefacts.storage import fetch as fetch_module
from megatron_patches.artefacts.storage import store as store_module
from megatron_patches.artefacts.storage.fetch import fetch_artefact
from megatron_patches.artefacts.storage.file import FolderStore
from megatron_patches.artefacts.storage.loose import fetch_loose, read_index
from megatron_patches.artefacts.storage.meter import Meter
from megatron_patches.artefacts.storage.packing import largest_tar, packed_files, unpack, write_tar
from megatron_patches.artefacts.storage.retrying import Retries, RetryingStore
from megatron_patches.artefacts.storage.store import (
    BoundedFile,
    DamagedCopy,
    StorageFull,
    TooManyEntries,
    TransferDiffers,
)
from megatron_patches.artefacts.storage.transfer import Options, as_bytes, remote_manifest
from megatron_patches.artefacts.unfinished import pulling_path
from megatron_patches.errors import Refused, TrainyardError

PREFIX = "checkpoints/step-0000000100"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Of one file, `data`, with four bytes."""
    return build_manifest("checkpoint", [record("data", b"four")], {"step": 100})


@pytest.fixture
def there(tmp_path: Path, manifest: Manifest) -> Path:
    folder = tmp_path / "remote" / PREFIX
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(as_bytes(manifest))
    (folder / "data").write_bytes(b"four")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> RetryingStore:
    return RetryingStore(FolderStore(Location("file", str(tmp_path / "remote"))), Retries(5, pause=0.001))


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of somebody else, as it must be afterwards too."""
    folder = tmp_path / "victim"
    (folder / "inner").mkdir(parents=True)
    for name in ("thesis.tex", "inner/id_rsa"):
        (folder / name).write_text("precious")
    return folder


def record(path: str, content: bytes) -> FileRecord:
    return FileRecord(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def fetch(store: RetryingStore, manifest: Manifest, target: Path) -> tuple[str, Meter]:
    meter = Meter()
    return fetch_artefact(store, PREFIX, manifest, target, Options(meter=meter)).result, meter


def assert_untouched(victim: Path) -> None:
    found = {path.relative_to(victim).as_posix(): path.read_text() for path in victim.rglob("*") if path.is_file()}
    assert found == {"thesis.tex": "precious", "inner/id_rsa": "precious"}


def plant(kind: str, path: Path) -> None:
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "circle":
        path.symlink_to(path.name)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.symlink_to(kind)


@pytest.mark.parametrize("kind", ["/dev/zero", "/dev/stdin", "fifo", "folder", "circle", "sparse"])
def test_what_is_no_file_of_the_right_size_is_asked_for_once(
    tmp_path: Path, store: RetryingStore, manifest: Manifest, there: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    real = FolderStore.fetch
    monkeypatch.setattr(FolderStore, "fetch", lambda *given: (tried.append(given[1]), real(*given)))  # type: ignore[func-returns-value]
    plant(kind, there / "data")
    meter = Meter()
    with pytest.raises(DamagedCopy, match="data"):
        fetch_artefact(store, PREFIX, manifest, tmp_path / "back", Options(meter=meter))
    assert (len(tried), meter.moved) == (1, 0)
    assert not (tmp_path / "back").exists()
    assert not any(path.stat().st_size for path in pulling_path(tmp_path / "back").iterdir())


@pytest.mark.parametrize("kind", ["/dev/zero", "fifo", "folder", "sparse"])
def test_manifests_there_that_are_no_small_file(
    store: RetryingStore, there: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(kind, there / "manifest.json")
    with pytest.raises(DamagedCopy, match=r"manifest\.json"):
        remote_manifest(store, PREFIX)


def test_the_same_wrong_bytes_twice_are_no_accident(
    tmp_path: Path, store: RetryingStore, manifest: Manifest, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (there / "data").write_bytes(b"FOUR")
    tried = []
    real = FolderStore.receive
    monkeypatch.setattr(FolderStore, "receive", lambda *given: (tried.append(given[1]), real(*given)))  # type: ignore[func-returns-value]
    with pytest.raises(DamagedCopy, match="at each of 2 tries"):
        fetch(store, manifest, tmp_path / "back")
    assert len(tried) == 2


def test_a_bounded_file_takes_what_was_promised() -> None:
    content = io.BytesIO()
    target = BoundedFile(content, 4, "there")
    target.write(b"four")
    with pytest.raises(DamagedCopy, match="larger than the 4 bytes"):
        target.write(b"x")
    target.cut(1)
    target.write(b"abc")
    assert content.getvalue() == b"fabc"


def test_a_disk_that_is_full_here_is_no_failure_of_the_location() -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(StorageFull, match="free some"):  # noqa: PTH123
        BoundedFile(full, 4, "there").write(b"x")


def test_more_than_the_disk_has_is_refused_before_it_comes(tmp_path: Path, store: RetryingStore, there: Path) -> None:
    huge = build_manifest("checkpoint", [FileRecord(path="data", size=1 << 60, sha256="0" * 64)], {"step": 100})
    with pytest.raises(StorageFull, match="free"):
        fetch(store, huge, tmp_path / "back")


def test_listings_have_a_bound(store: RetryingStore, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MOST_ENTRIES", 50)
    for number in range(40):
        (there / f"{number}").touch()
    assert len(store.entries("checkpoints")) == 42
    for number in range(20):
        (there / f"folder-{number}").mkdir()
    with pytest.raises(TooManyEntries, match="more than 50 files"):
        store.entries("checkpoints")


def test_listings_follow_links_in_no_circle_and_past_no_broken_one(store: RetryingStore, there: Path) -> None:
    (there / "0-gone").symlink_to("nowhere")
    (there / "circle").symlink_to("circle")
    (there / "up").symlink_to("..")
    os.mkfifo(there / "pipe")
    (there.parent / "moved").symlink_to(there)
    assert {path for path in store.entries("checkpoints") if "up/" not in path} == {
        f"{name}/{file}" for name in ("moved", "step-0000000100") for file in ("data", "manifest.json")
    }


@pytest.mark.parametrize("planted", [pulling_path, lambda target: target.with_name(f"{target.name}.pull.partial")])
def test_a_link_where_a_pull_gathers_its_files(
    tmp_path: Path, store: RetryingStore, manifest: Manifest, there: Path, victim: Path, planted: Callable[[Path], Path]
) -> None:
    target = tmp_path / "back"
    planted(target).symlink_to(victim)
    with pytest.raises(Refused, match="is a link"):
        fetch(store, manifest, target)
    assert_untouched(victim)


@pytest.mark.parametrize("name", ["data", "sub", "data.0123456789abcdef.partial", "manifest.json"])
def test_a_link_in_what_an_interrupted_pull_left(
    tmp_path: Path, store: RetryingStore, there: Path, victim: Path, name: str
) -> None:
    target = tmp_path / "back"
    nested = build_manifest("checkpoint", [record("data", b"four"), record("sub/x", b"five5")], {"step": 100})
    (there / "sub").mkdir()
    (there / "sub" / "x").write_bytes(b"five5")
    pulling_path(target).mkdir()
    (pulling_path(target) / name).symlink_to(victim if name == "sub" else victim / "thesis.tex")
    with pytest.raises(Refused, match="is a link"):
        fetch(store, nested, target)
    assert_untouched(victim)
    (pulling_path(target) / name).unlink()
    assert fetch(store, nested, target)[0] == "fetched"


def test_a_link_that_leads_nowhere_has_the_name(
    tmp_path: Path, store: RetryingStore, manifest: Manifest, there: Path
) -> None:
    (tmp_path / "back").symlink_to("gone")
    with pytest.raises(Refused, match="leads nowhere"):
        fetch(store, manifest, tmp_path / "back")


def write_index(tmp_path: Path, files: object) -> None:
    (tmp_path / "remote" / "logs").mkdir(parents=True, exist_ok=True)
    (tmp_path / "remote" / "logs" / "index.json").write_text(json.dumps({"files": files}))


def test_logs_go_through_no_link(tmp_path: Path, store: RetryingStore, victim: Path) -> None:
    content = b"said\n"
    facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "modified": 1}
    write_index(tmp_path, {"0001.log": facts, "sub/thesis.tex": facts})
    (tmp_path / "remote" / "logs" / "sub").mkdir()
    for name in ("0001.log", "sub/thesis.tex"):
        (tmp_path / "remote" / "logs" / name).write_bytes(content)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "sub").symlink_to(victim)
    with pytest.raises(Refused, match="through a link"):
        fetch_loose(store, "logs", tmp_path / "logs", Options())
    assert_untouched(victim)
    (tmp_path / "logs" / "sub").unlink()
    assert fetch_loose(store, "logs", tmp_path / "logs", Options()).files == 2


@pytest.mark.parametrize(
    "files",
    [
        [], "x", 5, None, {"a": 5}, {"a": []}, {"a": {"size": 1}}, {"a": {"size": -1, "sha256": "0" * 64}},
        {"../a": {"size": 1, "sha256": "0" * 64}}, {"a//b": {"size": 1, "sha256": "0" * 64}},
        {"a": {"size": 1, "sha256": "0" * 64}, "a/b": {"size": 1, "sha256": "0" * 64}},
        {"\x1b]52;c;": {"size": 1, "sha256": "0" * 64}},
    ],
)  # fmt: skip
def test_indices_of_logs_that_none_wrote(tmp_path: Path, store: RetryingStore, files: object) -> None:
    write_index(tmp_path, files)
    with pytest.raises(DamagedCopy, match="is damaged") as caught:
        read_index(store, "logs")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", [b"[]", b"{", b"5", b'{"files": 5}', b'{"files": {"a": 1}}', b"[" * 100_000, b"\xff"])
def test_indices_of_tars_that_none_wrote(text: bytes) -> None:
    assert packed_files(text) == set()


def pack(target: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))


def member(name: str, size: int, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


@pytest.mark.parametrize(
    "hostile",
    [
        [(member("data", 5), b"larger"[:5])],
        [(member("data", 0, tarfile.SYMTYPE, "../victim/thesis.tex"), b""), (member("data", 4), b"four")],
        [(member("data", 0, tarfile.LNKTYPE, "../victim/thesis.tex"), b"")],
        [(member("data", 0, tarfile.FIFOTYPE), b"")],
    ],
)
def test_tars_that_hold_something_else(
    tmp_path: Path, victim: Path, hostile: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    pack(tmp_path / "packed.tar", *hostile)
    (tmp_path / "here").mkdir()
    with pytest.raises(DamagedCopy, match="otherwise than the manifest says"):
        unpack(tmp_path / "packed.tar", tmp_path / "here", {"data": record("data", b"four")})
    assert_untouched(victim)
    assert list((tmp_path / "here").iterdir()) == []


def test_of_a_tar_only_what_is_wanted_comes_out(tmp_path: Path) -> None:
    members = [(member(name, 4), b"four") for name in ("../up", "/abs", "data", "other", "data")]
    pack(tmp_path / "packed.tar", *members)
    (tmp_path / "here").mkdir()
    assert unpack(tmp_path / "packed.tar", tmp_path / "here", {"data": record("data", b"four")}) == ["data"]
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["data"]


def test_a_tar_without_end(
    tmp_path: Path, store: RetryingStore, manifest: Manifest, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (there / "data").unlink()
    (there / "packed.json").write_text(json.dumps({"files": ["data"], "size": 1 << 50, "sha256": "0" * 64}))
    with (there / "packed.tar").open("wb") as file:
        file.truncate(1 << 40)
    meter = Meter()
    with pytest.raises(DamagedCopy, match="larger than"):
        fetch_artefact(store, PREFIX, manifest, tmp_path / "back", Options(meter=meter))
    assert meter.moved == 0
    assert fetch_module.TAR not in os.listdir(pulling_path(tmp_path / "back"))  # noqa: PTH208


def test_the_largest_tar_is_large_enough(tmp_path: Path) -> None:
    files = []
    for number in range(30):
        path = "/".join(["long-name-of-a-folder-" * 4] * 8) + f"/{number}"
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x" * number)
        files.append(record(path, b"x" * number))
    assert write_tar(tmp_path / "packed.tar", tmp_path, files).size <= largest_tar(files)


def test_manifests_with_paths_of_another_form(tmp_path: Path, store: RetryingStore, there: Path) -> None:
    """Their files would be fetched to one place and looked for at another."""
    content = json.loads((there / "manifest.json").read_bytes())
    for path in ("./data", "sub//data", "data/.", "../data"):
        content["files"][0]["path"] = path
        (there / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(TrainyardError, match="is no path inside"):
            remote_manifest(store, PREFIX)


def test_sources_that_are_no_plain_files(tmp_path: Path, store: RetryingStore) -> None:
    os.mkfifo(tmp_path / "pipe")
    upload = store_module.Upload(tmp_path / "pipe", 4, "0" * 64)
    with pytest.raises(TrainyardError, match=r"pipe|plain"):
        store.send(upload, "x/data", Meter())


def test_transfers_tell_what_arrived() -> None:
    assert TransferDiffers("x", "a").arrived == "a"


@pytest.mark.parametrize("name", ["pinned.json", "verified.json", "damaged.json"])
def test_no_location_marks_a_checkpoint_here(tmp_path: Path, store: RetryingStore, there: Path, name: str) -> None:
    forged = build_manifest("checkpoint", [record(name, b"{}")], {"step": 1}, (), "made by a test")
    (there / name).write_bytes(b"{}")
    with pytest.raises(DamagedCopy, match=f"lists {name}"):
        fetch(store, forged, tmp_path / "back")
    assert not (tmp_path / "back").exists()
