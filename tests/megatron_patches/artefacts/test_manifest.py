import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from megatron_patches.artefacts import manifest as manifest_module
from megatron_patches.artefacts.manifest import (
    MANIFEST,
    FileRecord,
    Manifest,
    Status,
    build_manifest,
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


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../up", ""])
def test_files_lie_inside_the_folder(path: str) -> None:
    with pytest.raises(ValidationError, match="inside"):
        FileRecord(path=path, size=1, sha256="0" * 64)


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


def test_the_revision_says_whether_there_were_changes(tmp_path: Path) -> None:
    assert manifest_module._revision(tmp_path) is None
    for arguments in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "--allow-empty", "-m", "c"],
    ):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    clean = manifest_module._revision(tmp_path)
    assert clean is not None and len(clean) == 40
    (tmp_path / "new").touch()
    assert manifest_module._revision(tmp_path) == f"{clean}+changes"


def test_without_git_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build_manifest("run", [], {}).by.revision is None


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
