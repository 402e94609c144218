import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError

from megatron_patches.artefacts.manifest import (
    MANIFEST,
    FileRecord,
    Manifest,
    Status,
    build_manifest,
    content_id,
    parse_manifest,
    read_manifest,
    record_file,
    refuse_invalid,
    verify_files,
    write_manifest,
)
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError


@pytest.fixture
def artefact(tmp_path: Path) -> Manifest:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data").write_bytes(b"content")
    files = [record_file(tmp_path / "sub" / "data", tmp_path)]
    manifest = build_manifest("checkpoint", files, {"step": 3, "loss": 0.1}, ["f" * 64], "make it")
    write_manifest(tmp_path / "manifest.json", manifest)
    return manifest


def test_what_is_read_is_what_was_written(tmp_path: Path, artefact: Manifest) -> None:
    assert read_manifest(tmp_path / "manifest.json") == artefact
    assert artefact.files[0].path == "sub/data"
    assert (artefact.by.command, artefact.parents) == ("make it", ["f" * 64])
    assert set(artefact.by.versions) >= {"python", "numpy"}


def test_the_id_never_changes() -> None:
    files = [FileRecord(path="a", size=1, sha256="0" * 64)]
    manifest = build_manifest("dataset", files, {"ä": [1, None, 0.5], "b": {"d": 1, "c": True}}, ["1" * 64])
    assert manifest.id == "115010cb333a9782246e191a01d4f474cd6ecf072c942c2df7233cc31752029e"


def test_the_id_depends_on_content_alone() -> None:
    files = [FileRecord(path="a", size=1, sha256="0" * 64)]
    first = build_manifest("dataset", files, {"tokens": 1, "documents": 2}, command="one")
    assert first.id == build_manifest("dataset", files, {"documents": 2, "tokens": 1}, command="two").id
    others = [
        build_manifest("export", files, {"tokens": 1, "documents": 2}),
        build_manifest("dataset", [], {"tokens": 1, "documents": 2}),
        build_manifest("dataset", files, {"tokens": 1, "documents": 3}),
        build_manifest("dataset", files, {"tokens": 1, "documents": 2}, ["0" * 64]),
    ]
    assert len({first.id, *(other.id for other in others)}) == 5


@pytest.mark.parametrize(
    ("key", "value"),
    [("kind", "export"), ("parents", []), ("files", []), ("facts", {"step": 4, "loss": 0.1}), ("id", "0" * 64)],
)
def test_an_edited_manifest_is_refused(tmp_path: Path, artefact: Manifest, key: str, value: Any) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(TrainyardError, match="was changed after it was written"):
        read_manifest(path)


def test_marking_invalid_keeps_the_id(tmp_path: Path, artefact: Manifest) -> None:
    path = tmp_path / "manifest.json"
    refuse_invalid(artefact, path, "allow it")
    status = Status(state="invalid", reason="wrong tokenizer", date="2026-01-01")
    write_manifest(path, artefact.model_copy(update={"status": status}))
    marked = read_manifest(path)
    assert marked.id == artefact.id
    with pytest.raises(TrainyardError, match=r"invalid since 2026-01-01: wrong tokenizer"):
        refuse_invalid(marked, path, "allow it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b'{"format": 1, "id', "is not JSON"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b'{"format": 2}', "is of format 2, which a later Trainyard wrote"),
        (b"[]", "not a manifest of format 1"),
    ],
)
def test_unreadable_manifests(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainyardError, match=message):
        read_manifest(path)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        *[
            (path, "inside")
            for path in ("/etc/passwd", "../up", "a/../../up", "", "./a", "a//b", "a/.", "a/", ".", "//")
        ],
        *[
            (path, "control character")
            for path in ("a\\b", "a\0b", "a\nb", "\x1b]52;c;", "\u202ea", "a\udc80", "a/\x7f")
        ],
        ("x" * 256, "more than 255 bytes"),
        ("\u00e9" * 128, "more than 255 bytes"),
        ("manifest.json", "own name"),
    ],
)
def test_a_path_has_one_form(path: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        FileRecord(path=path, size=1, sha256="0" * 64)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", -1), ("size", 1 << 63), ("size", 1.0), ("size", True),
        ("sha256", "0" * 63), ("sha256", "A" * 64), ("sha256", "0" * 64 + "\n"), ("sha256", ""),
    ],
)  # fmt: skip
def test_sizes_and_hashes_have_one_form(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        FileRecord.model_validate({"path": "a", "size": 1, "sha256": "0" * 64, key: value})


@pytest.mark.parametrize(
    ("paths", "said"),
    [(["a", "b", "a"], "'a' occurs twice"), (["a/b", "a"], "'a' is a file and the folder of another")],
)
def test_two_records_never_mean_one_file(paths: list[str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        build_manifest("checkpoint", [FileRecord(path=path, size=1, sha256="0" * 64) for path in paths], {})


def rewritten(artefact: Manifest, **more: object) -> bytes:
    """A manifest with other content, and the id of that content where it has one."""
    content: dict[str, Any] = {**artefact.model_dump(), **more}
    with suppress(ValueError, RecursionError, AttributeError):
        files = [FileRecord.model_construct(**file) for file in content["files"]]
        content["id"] = content_id(content["kind"], content["parents"], files, content["facts"])
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "more",
    [
        {"files": [{"path": "./data", "size": 7, "sha256": "0" * 64}]},
        {"files": [{"path": "a//b", "size": 7, "sha256": "0" * 64}]},
        {"files": [{"path": "a", "size": -7, "sha256": "0" * 64}]},
        {"files": [{"path": "a", "size": 7, "sha256": "0" * 64}] * 2},
        {"files": {}},
        {"facts": {"loss": float("nan")}},
        {"facts": {"text": "\ud800"}},
        {"facts": {"x": float("-inf")}},
        {"created": "2026\x1b]52;c;\x07"},
        {"status": {"state": "invalid", "date": "9\n9"}},
        {"parents": ["\u202e"]},
    ],
)
def test_manifests_that_none_wrote(artefact: Manifest, more: dict[str, object]) -> None:
    with pytest.raises(Damaged) as caught:
        parse_manifest(rewritten(artefact, **more), "there/manifest.json")
    assert str(caught.value).startswith("there/manifest.json")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("depth", [900, 100_000])
def test_facts_that_are_nested_deeply(artefact: Manifest, depth: int) -> None:
    text = rewritten(artefact, facts={"x": "HERE"}).replace(b'"HERE"', b"[" * depth + b"]" * depth)
    with pytest.raises(Damaged):
        parse_manifest(text, "manifest.json")


def test_of_many_problems_a_few_are_told(artefact: Manifest) -> None:
    files = [{"path": f"../{number}", "size": 1, "sha256": "0" * 64} for number in range(1000)]
    with pytest.raises(Damaged, match="and 995 more") as caught:
        parse_manifest(rewritten(artefact, files=files), "manifest.json")
    assert len(str(caught.value)) < 2000


def test_manifests_that_are_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros", "."):
        with pytest.raises(Refused, match="where a file is expected"):
            read_manifest(tmp_path / name)


@pytest.mark.parametrize("facts", [{"text": "\ud800"}, {"x": float("inf")}])
def test_ids_of_what_no_file_can_hold(facts: dict[str, JsonValue]) -> None:
    with pytest.raises(ValueError, match=r"surrogate|Out of range"):
        content_id("checkpoint", [], [], facts)


def test_the_command_line_is_recorded_without_credentials() -> None:
    made = build_manifest(
        "run", [], {}, command="tool --to s3://KEY:SEC/RET@bucket/p --token hf_abcdefghijklmnopqrst x"
    )
    assert made.by.command == "tool --to s3://... --token ... x"


def test_facts_that_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        build_manifest("checkpoint", [], {"loss": float("nan")})


def test_verification_names_what_differs(tmp_path: Path, artefact: Manifest) -> None:
    data = tmp_path / "sub" / "data"
    assert verify_files(artefact, tmp_path, hashes=True) == []
    data.write_bytes(b"Content")
    assert verify_files(artefact, tmp_path, hashes=False) == []
    assert "sha256" in verify_files(artefact, tmp_path, hashes=True)[0]
    data.write_bytes(b"conten")
    assert verify_files(artefact, tmp_path, hashes=False) == [f"{data} has 6 bytes, its manifest says 7"]
    data.unlink()
    assert verify_files(artefact, tmp_path, hashes=False) == [f"{data} is missing"]


def test_missing_damaged_and_refused_are_told_apart(tmp_path: Path, artefact: Manifest) -> None:
    path = tmp_path / MANIFEST
    path.unlink()
    with pytest.raises(Missing):
        read_manifest(path)
    path.write_text("{")
    with pytest.raises(Damaged):
        read_manifest(path)
    path.write_text('{"format": 2}')
    with pytest.raises(Refused):
        read_manifest(path)
    with pytest.raises(Refused):
        refuse_invalid(artefact.model_copy(update={"status": Status(state="invalid")}), path, "make another")
