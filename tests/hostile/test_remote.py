"""Locations that others write to: what lies there, pulled; and runs that others prepared, pushed, tidied and listed."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.removal import carry_out, plan_removal
from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.manifest import FileRecord, Manifest, content_id, read_manifest, verify_files
from megatron_patches.artefacts.retention import CopiedRetention
from megatron_patches.artefacts.storage.packing import packed_files, unpack
from megatron_patches.artefacts.storage.retrying import Retries
from megatron_patches.errors import TrainyardError
from tests.hostile.canary import SECRET, Place
from tests.hostile.cases import attempt, cases
from tests.hostile.oddities import ODD_TEXTS, odd_bytes, odd_entries, odd_json
from tests.small_artefacts import RUN, make_artefact, make_checkpoint
from tools.commands.sync_to_hub.items import Choice
from tools.commands.sync_to_hub.pull import Pull, pull
from tools.commands.sync_to_hub.run import Line, Task, push

NewPlace = Callable[[], Place]
RETRIES = Retries(pause=0.001)
STEP = "checkpoints/step-0000000100"


def _location(folder: Path) -> Location:
    return Location("file", str(folder))


def _pull(place: Place, what: tuple[str, ...] = ("checkpoints", "logs")) -> list[Line] | TrainyardError:
    task = Pull(_location(place.inside / "remote"), place.inside / "runs" / RUN, what, retries=RETRIES)
    return attempt(lambda: list(pull(task)))


def _check_pulled(place: Place, lines: list[Line] | TrainyardError) -> None:
    """What is called fetched is whole, and nothing outside was touched."""
    place.check()
    run = place.inside / "runs" / RUN
    for line in [] if isinstance(lines, TrainyardError) else lines:
        if line.word == "fetched" and line.name.startswith("checkpoints/"):
            manifest = read_manifest(run / line.name / "manifest.json")
            assert not verify_files(manifest, run / line.name, hashes=True)
            assert all((run / line.name / file.path).is_file() for file in manifest.files)


def _remote(place: Place) -> Path:
    make_checkpoint(place.inside / "made", 100)
    remote = place.inside / "remote"
    (place.inside / "made" / RUN).rename(remote)
    (remote / "logs").mkdir()
    (remote / "logs" / "0001.log").write_bytes(b"line\n")
    sha256 = "f0f6a1fc9ddd0ba8f2b4e7cf09ee6d6f2a8d8e9b1bda29d0d1f9d6b1d8b2c5d3"
    index = {"files": {"0001.log": {"size": 5, "sha256": sha256, "modified": 1}}}
    (remote / "logs" / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return remote


def _hashed(content: bytes) -> bytes:
    """A manifest whose id is right for its content, as an attacker would write it."""
    try:
        manifest = json.loads(content)
        made = Manifest.model_validate(manifest)
        manifest["id"] = content_id(made.kind, made.parents, made.files, made.facts)
        return json.dumps(manifest).encode()
    except (ValueError, TypeError, RecursionError):
        return content


@cases(150)
@given(data=st.data())
def test_a_manifest_at_a_location(new_place: NewPlace, data: st.DataObject) -> None:
    place = new_place()
    path = _remote(place) / STEP / "manifest.json"
    path.write_bytes(_hashed(data.draw(odd_json(json.loads(path.read_bytes())))))
    _check_pulled(place, _pull(place))


@cases(150)
@given(data=st.data())
def test_paths_at_a_location(new_place: NewPlace, data: st.DataObject) -> None:
    place = new_place()
    remote = _remote(place)
    manifest = json.loads((remote / STEP / "manifest.json").read_bytes())
    for file in data.draw(st.lists(st.sampled_from(manifest["files"]), min_size=1, max_size=2)):
        odd = st.sampled_from([*ODD_TEXTS, f"{place.outside}/secret", "../../../outside/victim/a", "manifest.json"])
        file["path"] = data.draw(odd)
    (remote / STEP / "manifest.json").write_bytes(_hashed(json.dumps(manifest).encode()))
    _check_pulled(place, _pull(place))


@cases(120)
@given(data=st.data(), put=odd_entries())
def test_what_stands_at_a_location(
    new_place: NewPlace, data: st.DataObject, put: Callable[[Place, Path], None]
) -> None:
    place = new_place()
    remote = _remote(place)
    entries = sorted(path for path in remote.rglob("*") if path.name != "unlikely")
    put(place, data.draw(st.sampled_from(entries)))
    with place.watched():
        lines = _pull(place)
    _check_pulled(place, lines)


@cases(80)
@given(data=st.data())
def test_an_index_of_logs_at_a_location(new_place: NewPlace, data: st.DataObject) -> None:
    place = new_place()
    path = _remote(place) / "logs" / "index.json"
    path.write_bytes(data.draw(odd_json(json.loads(path.read_bytes()))))
    _check_pulled(place, _pull(place, ("logs",)))


@cases(80)
@given(
    name=st.sampled_from([each for each in ODD_TEXTS if "\0" not in each and "/" not in each and 0 < len(each) < 200])
)
def test_names_at_a_location(new_place: NewPlace, name: str) -> None:
    place = new_place()
    remote = _remote(place)
    if name not in (".", ".."):
        make_artefact(remote / "checkpoints" / name, "checkpoint", {"a": b"a"}, {"step": 1})
    lines = _pull(place)
    _check_pulled(place, lines)
    assert not isinstance(lines, TrainyardError)
    assert any(line.name == STEP and line.word == "fetched" for line in lines)


@cases(100)
@given(data=st.data(), put=odd_entries())
def test_links_that_wait_where_a_pull_writes(
    new_place: NewPlace, data: st.DataObject, put: Callable[[Place, Path], None]
) -> None:
    place = new_place()
    _remote(place)
    run = place.inside / "runs" / RUN
    waiting = ["checkpoints", STEP, f"{STEP}.pulling", f"{STEP}.pulling/config.yaml", "logs", "logs/0001.log"]
    target = run / data.draw(st.sampled_from(waiting))
    target.parent.mkdir(parents=True)
    put(place, target)
    _check_pulled(place, _pull(place))


@cases(120)
@given(data=st.data(), put=odd_entries(huge=False))
def test_links_in_a_run_that_is_pushed(
    new_place: NewPlace, data: st.DataObject, put: Callable[[Place, Path], None]
) -> None:
    place = new_place()
    runs = place.inside / "runs"
    make_checkpoint(runs, 100)
    for name in ("logs", "events", "launches/0001"):
        (runs / RUN / name).mkdir(parents=True)
        (runs / RUN / name / "a.log").write_bytes(b"line\n")
    put(place, data.draw(st.sampled_from(sorted((runs / RUN).rglob("*")))))
    task = Task(runs / RUN, _location(place.inside / "remote"), Choice(what=("checkpoints", "logs")), retries=RETRIES)
    with place.watched():
        lines = attempt(lambda: list(push(task)))
    place.check()
    place.check_unread()
    sent = [path for path in (place.inside / "remote").rglob("*") if path.is_file()]
    assert not any(path.stat().st_size < 1 << 20 and SECRET in path.read_bytes() for path in sent)
    assert not isinstance(lines, TrainyardError)


@cases(80)
@given(data=st.data(), put=odd_entries())
def test_links_in_a_run_that_is_tidied(
    new_place: NewPlace, data: st.DataObject, put: Callable[[Place, Path], None]
) -> None:
    place = new_place()
    runs = place.inside / "runs"
    for step in (100, 200, 300):
        make_checkpoint(runs, step)
    put(place, data.draw(st.sampled_from(sorted((runs / RUN).rglob("*")))))

    def tidy() -> None:
        with open_catalogue(runs, place.inside / "data", thorough=True) as catalogue:
            carry_out(plan_removal(catalogue, runs, [RUN], CopiedRetention(keep_last=1)))

    with _cache(place):
        attempt(tidy)
    place.check()


@contextmanager
def _cache(place: Place) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINYARD_CACHE", str(place.inside / "cache"))
        yield


def _tar(names: list[str], kinds: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind in zip(names, kinds, strict=True):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../../outside/secret"
            content = b"content" if kind == tarfile.REGTYPE else b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


_KINDS = [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE]


@cases(150)
@given(data=st.data())
def test_a_tar(new_place: NewPlace, data: st.DataObject) -> None:
    place = new_place()
    texts = st.sampled_from(["a", "b/c", "b", "../a", *(each for each in ODD_TEXTS if len(each) < 200)])
    names = data.draw(st.lists(texts, min_size=1, max_size=4))
    kinds = [data.draw(st.sampled_from(_KINDS)) for _ in names]
    content = _tar([name.replace("\0", "") or "x" for name in names], kinds)
    if data.draw(st.booleans()):
        content = data.draw(odd_bytes(content))
    path = place.inside / "packed.tar"
    path.write_bytes(content)
    folder = place.inside / "folder"
    folder.mkdir()
    attempt(
        lambda: unpack(
            path, folder, dict.fromkeys(("a", "b/c", "b", *names), FileRecord(path="a", size=7, sha256="0" * 64))
        )
    )
    place.check()
    for found in folder.rglob("*"):
        assert not found.is_symlink()
        assert found.resolve().is_relative_to(folder.resolve())


@cases(60)
@given(content=odd_json({"files": ["a", "b/c"]}))
def test_an_index_of_a_tar(content: bytes) -> None:
    found = attempt(lambda: packed_files(content))
    assert isinstance(found, TrainyardError) or all(isinstance(each, str) for each in found)


def test_a_file_that_does_not_end_is_read_up_to_its_size(new_place: NewPlace) -> None:
    place = new_place()
    path = _remote(place) / STEP / "config.yaml"
    path.unlink()
    path.symlink_to("/dev/zero")
    lines = _pull(place)
    assert not isinstance(lines, TrainyardError)
    assert [line.word for line in lines if line.name == STEP] == ["failed"]
    written = sum(each.stat().st_size for each in (place.inside / "runs").rglob("*") if each.is_file())
    assert written < 1 << 20
