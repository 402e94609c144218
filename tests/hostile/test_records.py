"""What lies in a run's folder: manifests, events, notes, copies, marks, failures."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given

from data_tools.samples.skipping import SkippedSamples
from megatron_patches.artefacts.annotations import Annotation, annotate, read_standing
from megatron_patches.artefacts.branch import BEGAN, read_beginnings
from megatron_patches.artefacts.descent import Stretch, way_of
from megatron_patches.artefacts.folders import inspect
from megatron_patches.artefacts.inventory.copies import Copy, read_copies
from megatron_patches.artefacts.manifest import Manifest, parse_manifest
from megatron_patches.artefacts.marks import verification_of
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.starting_point import INITIAL_WEIGHTS, InitialWeights, read_initial_weights
from megatron_patches.errors import TrainyardError
from megatron_patches.events.columns import scan_steps
from megatron_patches.events.reading import effective, read_events, scan_events
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.launch.rollback_record import newest_rollback
from tests.hostile.canary import Place
from tests.hostile.cases import attempt, cases
from tests.hostile.oddities import odd_bytes, odd_entries, odd_json, odd_text
from tests.small_artefacts import RUN, make_artefact, make_checkpoint

NewPlace = Callable[[], Place]
_EVENTS = [
    {"kind": "start", "time": "2026-01-01T00:00:00.000+00:00", "step": 0},
    {"kind": "step", "time": "2026-01-01T00:00:01.000+00:00", "step": 1, "tokens": 128, "loss": 6.5, "seconds": 0.5},
    {"kind": "validation", "time": "2026-01-01T00:00:02.000+00:00", "step": 1, "loss": 6.25, "tokens": 128},
    {"kind": "failure", "time": "2026-01-01T00:00:03.000+00:00", "step": 1, "text": "RuntimeError: it broke"},
]
_BEGUN = {
    "named": "r@best", "run": "r", "step": 3, "id": "0" * 64, "folder": "/x",
    "rows": {"table": {"stored": 5, "ranges": [[0, 2], [3, 5]]}},
}  # fmt: skip


def _manifest() -> bytes:
    files = [{"path": "sub/a.bin", "size": 4, "sha256": "0" * 64}, {"path": "b.bin", "size": 0, "sha256": "1" * 64}]
    content = {
        "format": 1,
        "id": "0" * 64,
        "kind": "checkpoint",
        "created": "2026-01-01T00:00:00+00:00",
        "by": {"command": "made by a test", "revision": None, "versions": {"python": "3.12"}},
        "parents": ["2" * 64],
        "files": files,
        "facts": {"step": 1, "tokens": 2, "run": RUN},
        "status": {"state": "valid", "reason": None, "date": None, "cause": None},
    }
    return json.dumps(content).encode()


def _is_plain(path: str) -> bool:
    return str(PurePosixPath(path)) == path and not path.startswith("/") and ".." not in PurePosixPath(path).parts


_BRANCH = {
    "run_id": "3" * 64, "launch": "0004", "step": 30, "branch": [["0001", 0], ["0004", 20]],
    "origin": {"id": "4" * 64, "run_id": "5" * 64, "launch": "0002", "step": 7, "branch": [["0002", 0]]},
}  # fmt: skip


@cases(200)
@given(content=odd_json(_BRANCH))
def test_a_checkpoints_way(content: bytes) -> None:
    found = attempt(lambda: _way(content))
    assert isinstance(found, TrainyardError) or all(isinstance(each, (str, Stretch)) for each in found)


def _way(content: bytes) -> list[Stretch | str]:
    return list(way_of(parse_object(content, "manifest.json")))


@cases(200)
@given(content=odd_json({"launch": 4, "step": 20, "checkpoint": "0" * 64, "rollback": True}))
def test_where_a_launch_began(new_place: NewPlace, content: bytes) -> None:
    run = RunFolder(new_place().inside / "run")
    (run.launches / "0004").mkdir(parents=True)
    (run.launches / "0004" / BEGAN).write_bytes(content)
    found = attempt(lambda: read_beginnings(run))
    assert isinstance(found, TrainyardError) or [each.launch for each in found] == [4]


@cases(400)
@given(content=odd_json(json.loads(_manifest())))
def test_a_manifest(content: bytes) -> None:
    found = attempt(lambda: parse_manifest(content, "origin/manifest.json"))
    assert isinstance(found, TrainyardError)
    assert "origin/manifest.json" in str(found)


@cases(300)
@given(content=odd_json(json.loads(_manifest())["files"]))
def test_paths_that_a_manifest_lists_are_plain_and_stay_inside(content: bytes) -> None:
    whole = _manifest().replace(json.dumps(json.loads(_manifest())["files"]).encode(), content)

    def validated() -> Manifest:
        return Manifest.model_validate_json(whole)

    try:
        found = validated()
    except (ValueError, RecursionError):
        return
    paths = [file.path for file in found.files]
    assert all(_is_plain(path) for path in paths), paths
    assert len(set(paths)) == len(paths)
    assert all(file.size >= 0 for file in found.files)


@cases(100)
@given(content=odd_bytes(_manifest()))
def test_bytes_of_a_manifest(content: bytes) -> None:
    assert isinstance(attempt(lambda: parse_manifest(content, "origin")), TrainyardError)


@cases(150)
@given(content=odd_text("".join(json.dumps(event) + "\n" for event in _EVENTS)))
def test_events(new_place: NewPlace, content: bytes) -> None:
    events = new_place().inside / "events"
    events.mkdir()
    (events / "0001-train.jsonl").write_bytes(content)
    found = attempt(lambda: effective(read_events(events), "validation"))
    if isinstance(found, TrainyardError):
        assert "0001-train.jsonl:" in str(found), found
    else:
        assert all(type(event.facts["step"]) is int for event in found)


@cases(150)
@given(content=odd_text("".join(json.dumps(event) + "\n" for event in _EVENTS)))
def test_columns_of_events(new_place: NewPlace, content: bytes) -> None:
    """They and the events are damaged alike, and have the same steps."""
    events = new_place().inside / "events"
    events.mkdir()
    (events / "0001-train.jsonl").write_bytes(content)
    columns, problems = scan_steps(events, ("loss",), ("tokens", "loss", "seconds"))
    read, unread = scan_events(events, ("start", "step"))
    assert columns.steps.tolist() == sorted({event.facts["step"] for event in effective(read, "step")})
    assert problems == unread


_NOTE = asdict(Annotation("note", "looks good", by="someone", date="2026-01-01T00:00:00+00:00"))


@cases(150)
@given(content=odd_json(_NOTE))
def test_a_note(new_place: NewPlace, content: bytes) -> None:
    run = new_place().inside
    annotate(run, Annotation("tag", "kept"))
    path = run / "annotations" / "000002-abcdef.json"
    assert path.parent.is_dir()
    path.write_bytes(content)
    found = attempt(lambda: read_standing(run))
    if isinstance(found, TrainyardError):
        assert path.name in str(found)
    else:
        assert "kept" in found.tags
        assert all(isinstance(each, str) for each in [*found.tags, *(note.text for note in found.notes)])


_COPY = Copy("1" * 64, "1" * 64, "checkpoints/step-0000000100", "file:///x", 4, True, None, "as sent", number=1)


@cases(100)
@given(content=odd_json(asdict(_COPY)))
def test_a_record_of_a_copy(new_place: NewPlace, content: bytes) -> None:
    run = new_place().inside
    (run / "copies").mkdir()
    (run / "copies" / "host-1-abcdef.jsonl").write_bytes(content + b"\n")
    found = attempt(lambda: read_copies(run))
    if isinstance(found, TrainyardError):
        assert "host-1-abcdef.jsonl" in str(found)
    else:
        assert all(isinstance(copy.name, str) and isinstance(copy.location, str) for copy in found)


@cases(60)
@given(content=odd_json({"reason": "read back", "date": "2026-01-01"}))
def test_a_mark(new_place: NewPlace, content: bytes) -> None:
    place = new_place()
    make_checkpoint(place.inside, 100)
    folder = place.inside / RUN / "checkpoints" / "step-0000000100"
    (folder / "verified.json").write_bytes(content)
    attempt(lambda: verification_of(folder))


@cases(60)
@given(content=odd_json(_BEGUN))
def test_what_a_launch_begins_from(new_place: NewPlace, content: bytes) -> None:
    folder = new_place().inside
    (folder / INITIAL_WEIGHTS).write_bytes(content)
    found = attempt(lambda: read_initial_weights(folder))
    if isinstance(found, InitialWeights):
        assert all(start < stop <= rows.stored for rows in found.rows.values() for start, stop in rows.ranges)


_ROLLBACK = {
    "from_step": 8, "to_step": 4, "checkpoint": "1" * 64, "skip_samples": [[8, 16], [40, 48]], "because": "a spike",
    "by": "someone", "date": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


@cases(100)
@given(content=odd_json(_ROLLBACK))
def test_a_record_of_a_rollback(new_place: NewPlace, content: bytes) -> None:
    run = RunFolder(new_place().inside)
    (run.launches / "0002").mkdir(parents=True)
    (run.launches / "0002" / "rollback.json").write_bytes(content)
    found = attempt(lambda: newest_rollback(run))
    if isinstance(found, TrainyardError):
        assert "0002/rollback.json" in str(found)
    else:
        assert found is not None
        assert all(0 <= first < end for first, end in found.skip_samples)
        assert found.skip_samples == SkippedSamples(found.skip_samples).ranges


@pytest.mark.parametrize("name", ["manifest.json", "weights-00000.safetensors"])
@cases(30)
@given(put=odd_entries())
def test_what_stands_where_a_file_of_a_checkpoint_is_expected(
    new_place: NewPlace, name: str, put: Callable[[Place, Path], None]
) -> None:
    place = new_place()
    make_checkpoint(place.inside, 100)
    folder = RunFolder(place.inside / RUN).checkpoints / "step-0000000100"
    put(place, folder / name)
    found = attempt(lambda: inspect(folder))
    assert not isinstance(found, TrainyardError)
    assert found.problems, "it was taken for whole"
    place.check()


@pytest.mark.parametrize(
    "name", ["events", "events/0001-train.jsonl", "annotations", "copies", "launches", "launches/0001/rollback.json"]
)
@cases(20)
@given(put=odd_entries())
def test_what_stands_where_a_record_of_a_run_is_expected(
    new_place: NewPlace, name: str, put: Callable[[Place, Path], None]
) -> None:
    place = new_place()
    make_artefact(place.inside / "run" / "checkpoints" / "step-0000000100", "checkpoint", {"a": b"a"}, {})
    for folder in ("events", "annotations", "copies", "launches/0001"):
        (place.inside / "run" / folder).mkdir(parents=True)
    put(place, place.inside / "run" / name)
    attempt(lambda: read_events(place.inside / "run" / "events"))
    attempt(lambda: read_standing(place.inside / "run"))
    attempt(lambda: read_copies(place.inside / "run"))
    attempt(lambda: newest_rollback(RunFolder(place.inside / "run")))
    place.check()
