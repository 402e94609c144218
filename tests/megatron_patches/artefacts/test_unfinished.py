"""A leftover's name says what was being done; a launch removes its run's saves and deletions, and nothing else."""

import shutil
from pathlib import Path

import pytest

from megatron_patches.artefacts.folders import checkpoint_name
from megatron_patches.artefacts.unfinished import (
    delete_folder,
    pulling_path,
    remove_leftovers,
    saving_path,
    unfinished_kind,
)
from megatron_patches.atomic_files import temporary_path

FOLDER = Path(checkpoint_name(100))
OF_EARLIER_VERSIONS = {
    f"{FOLDER}.0001.partial": "save",
    f"{FOLDER}.12345.partial": "save",
    f"{FOLDER}.deleted": "deletion",
    f"{FOLDER}.deleted.partial": "deletion",
    f"{FOLDER}.pull.partial": "pull",
    f"{FOLDER}.89abcdef.partial": "temporary",
    f"{FOLDER}.12345678.partial": "temporary",
}
KINDS = {
    saving_path(FOLDER, "0001").name: "save",
    f"{FOLDER}.deleting": "deletion",
    pulling_path(FOLDER).name: "pull",
    FOLDER.name: None,
    f"{FOLDER}.replaced-1": None,
    **OF_EARLIER_VERSIONS,
}


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_each_kind_has_a_name_of_its_own(name: str, kind: str | None) -> None:
    assert unfinished_kind(name) == kind
    assert unfinished_kind(temporary_path(FOLDER).name) == "temporary"


def test_a_launch_leaves_an_interrupted_pull_alone(tmp_path: Path) -> None:
    for name in KINDS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights-00000.safetensors").write_bytes(b"half")
    removed = {path.name for path in remove_leftovers(tmp_path)}
    assert removed == {name for name, kind in KINDS.items() if kind in ("save", "deletion")}
    assert {path.name for path in tmp_path.iterdir()} == KINDS.keys() - removed
    assert remove_leftovers(tmp_path / "nowhere") == []


def test_a_deletion_goes_on_where_an_earlier_one_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    for each in (folder, tmp_path / f"{FOLDER}.deleting"):
        each.mkdir()
        (each / "config.yaml").touch()
    delete_folder(folder)
    assert list(tmp_path.iterdir()) == []
    delete_folder(folder)  # another process was first
    (tmp_path / f"{FOLDER}.deleted").mkdir()
    delete_folder(tmp_path / f"{FOLDER}.deleted")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_deleted_is_said_and_has_lost_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FOLDER).mkdir()

    def refuse(path: Path) -> None:
        raise PermissionError(f"{path} may not be removed")

    monkeypatch.setattr("os.rmdir", lambda path, **_: refuse(path))
    with pytest.raises(PermissionError, match="may not be removed"):
        delete_folder(tmp_path / FOLDER)
    assert [path.name for path in tmp_path.iterdir()] == [f"{FOLDER}.deleting"]
    monkeypatch.undo()
    shutil.rmtree(tmp_path / f"{FOLDER}.deleting")
