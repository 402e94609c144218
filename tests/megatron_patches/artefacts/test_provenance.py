"""The revision of a checkout: known whoever owns it, and where it is not known, the reason is said and written."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from megatron_patches.artefacts import provenance
from megatron_patches.artefacts.manifest import build_manifest, read_manifest, write_manifest
from megatron_patches.artefacts.provenance import Revision, known_revision, revision, versions

OTHER = 12345
"""a user without name who owns nothing"""


def make_repository(folder: Path) -> str:
    """Its one commit."""
    folder.mkdir(exist_ok=True)
    (folder / "code").write_text("code")
    author = ["-c", "user.name=a", "-c", "user.email=b"]
    for arguments in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "c"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_it_says_whether_there_were_changes(tmp_path: Path) -> None:
    commit = make_repository(tmp_path).strip()
    assert revision(tmp_path) == Revision(commit)
    (tmp_path / "new").touch()
    assert revision(tmp_path) == Revision(f"{commit}+changes")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives the checkout to another user, which only root can")
def test_of_another_users_checkout(tmp_path: Path) -> None:
    commit = make_repository(tmp_path / "theirs").strip()
    for path in [tmp_path / "theirs", *(tmp_path / "theirs").rglob("*")]:
        os.chown(path, OTHER, OTHER)
    refused = subprocess.run(["git", "status"], cwd=tmp_path / "theirs", capture_output=True, text=True, check=False)
    assert "dubious ownership" in refused.stderr
    assert revision(tmp_path / "theirs") == Revision(commit)


def test_of_a_hook_that_names_another_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = make_repository(tmp_path / "ours").strip()
    make_repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert revision(tmp_path / "ours") == Revision(commit)


def test_of_a_folder_of_a_larger_repository(tmp_path: Path) -> None:
    (tmp_path / "vendored").mkdir()
    (tmp_path / "vendored" / "code").touch()
    commit = make_repository(tmp_path).strip()
    assert revision(tmp_path / "vendored") == Revision(commit)


class TestNotKnown:
    def test_no_repository(self, tmp_path: Path) -> None:
        assert revision(tmp_path) == Revision(None, f"{tmp_path} is not part of a git repository")

    def test_an_archive_inside_another_repository(self, tmp_path: Path) -> None:
        make_repository(tmp_path)
        (tmp_path / "archive").mkdir()
        (tmp_path / "archive" / "code").touch()
        expected = Revision(None, f"{tmp_path / 'archive'} is not part of a git repository")
        assert revision(tmp_path / "archive") == expected

    def test_no_git(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert revision(tmp_path) == Revision(None, "git is not installed here")

    def test_no_commit(self, tmp_path: Path) -> None:
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
        found = revision(tmp_path)
        assert found.text is None and "ambiguous argument 'HEAD'" in str(found.missing)

    def test_a_damaged_repository(self, tmp_path: Path) -> None:
        make_repository(tmp_path)
        shutil.rmtree(tmp_path / ".git" / "objects")
        assert revision(tmp_path).missing

    def test_it_is_said_once_and_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        provenance._say_once.cache_clear()
        monkeypatch.setenv("PATH", str(tmp_path))
        manifest = build_manifest("run", [], {})
        known_revision(tmp_path)
        assert capsys.readouterr().err == "note: the code's revision is not recorded: git is not installed here\n"
        write_manifest(tmp_path / "manifest.json", manifest)
        assert read_manifest(tmp_path / "manifest.json") == manifest
        made_by = json.loads((tmp_path / "manifest.json").read_text())["by"]
        assert (made_by["revision"], made_by["revision_missing"]) == (None, "git is not installed here")


def test_a_manifest_with_a_revision_has_the_keys_it_ever_had(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.json", build_manifest("run", [], {}))
    assert json.loads((tmp_path / "manifest.json").read_text())["by"].keys() == {"command", "revision", "versions"}


def test_versions_that_are_not_known_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise provenance.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(provenance.metadata, "version", version)
    assert versions()["trainyard"] == "not installed"
