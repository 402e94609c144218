"""A leftover's name says what was being done; a launch removes its run's saves and deletions, and nothing else."""

import os
import shutil
from pathlib import Path

import pytest

from megatron_patches.artefacts.folders import checkpoint_name
from megatron_patches.artefacts.unfinished import (
    Leftovers,
    delete_folder,
    pulling_path,
    remove_leftovers,
    saving_path,
    unfinished_kind,
)
from megatron_patches.atomic_files import temporary_path
from megatron_patches.errors import Refused

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
    removed = {path.name for path in remove_leftovers(tmp_path).removed}
    assert removed == {name for name, kind in KINDS.items() if kind in ("save", "deletion")}
    assert {path.name for path in tmp_path.iterdir()} == KINDS.keys() - removed
    assert remove_leftovers(tmp_path / "nowhere") == Leftovers()


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


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder outside the run, with what a run's own leftovers would be called."""
    for name in (FOLDER.name, f"{FOLDER}.deleting", f"{FOLDER}.0001.saving"):
        (tmp_path / "victim" / name / "deep").mkdir(parents=True)
        (tmp_path / "victim" / name / "deep" / "thesis.txt").write_text("mine")
    return tmp_path / "victim"


def untouched(victim: Path) -> bool:
    return len(list(victim.glob("*/deep/thesis.txt"))) == 3 and len(list(victim.rglob("*"))) == 9


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return tmp_path / "run" / "checkpoints"


ODD = {
    "link to a folder": lambda path, victim: path.symlink_to(victim / FOLDER),
    "link that leads nowhere": lambda path, victim: path.symlink_to(victim / "nowhere"),
    "link to itself": lambda path, victim: path.symlink_to(path),
    "file": lambda path, victim: path.write_text("no folder"),
    "pipe": lambda path, victim: os.mkfifo(path),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("ending", ["", ".deleting", ".0001.saving", ".deleted"])
def test_what_lies_in_a_folders_place_goes_alone(kind: str, ending: str, shelf: Path, victim: Path) -> None:
    path = shelf / f"{FOLDER}{ending}"
    ODD[kind](path, victim)
    told = delete_folder(path)
    assert list(shelf.iterdir()) == [] and untouched(victim)
    if kind == "link to a folder":
        assert told == f"{path.name} was a link; its target {victim / FOLDER} stays"
    ODD[kind](path, victim)
    assert [path.name for path in remove_leftovers(shelf).removed] == ([path.name] if ending else [])
    assert untouched(victim)


def test_links_within_a_folder_go_and_their_targets_stay(shelf: Path, victim: Path) -> None:
    (shelf / FOLDER).mkdir()
    (shelf / FOLDER / "deep").symlink_to(victim)
    (shelf / f"{FOLDER}.deleting").symlink_to(victim / FOLDER)  # where the deletion wants to put it
    delete_folder(shelf / FOLDER)
    assert list(shelf.iterdir()) == [] and untouched(victim)


def test_nothing_goes_through_a_shelf_that_is_a_link(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "run").mkdir()
    shelf = tmp_path / "run" / "checkpoints"
    shelf.symlink_to(victim)
    with pytest.raises(Refused, match=f"is a link to {victim}, and nothing is deleted through a link"):
        delete_folder(shelf / FOLDER)
    leftovers = remove_leftovers(shelf)
    assert not leftovers.removed and len(leftovers.complaints) == 2 and "is a link" in leftovers.complaints[0]
    assert untouched(victim)
    shelf.unlink()
    shelf.write_text("a file")
    assert remove_leftovers(shelf) == Leftovers()
    with pytest.raises(Refused, match="is a file, where a folder is expected"):
        delete_folder(shelf / FOLDER)


def test_a_leftover_that_stays_is_told_and_holds_up_no_other(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (100, 200):
        (shelf / f"{checkpoint_name(step)}.deleting").mkdir()
    rmdir = os.rmdir

    def refuse(path: str, **options: int) -> None:
        if "100" in path:
            raise PermissionError(f"{path} may not be removed")
        rmdir(path, **options)

    monkeypatch.setattr("os.rmdir", refuse)
    leftovers = remove_leftovers(shelf)
    assert [path.name for path in leftovers.removed] == [f"{checkpoint_name(200)}.deleting"]
    assert leftovers.complaints == (
        f"{checkpoint_name(100)}.deleting, left by a killed save or deletion, cannot be removed: "
        f"{checkpoint_name(100)}.deleting may not be removed",
    )


def test_a_read_only_folder_keeps_its_name(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shelf / FOLDER).mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: False)  # a superuser's tests may write everywhere
    with pytest.raises(PermissionError, match="is read-only; to let it go: chmod -R u\\+w"):
        delete_folder(shelf / FOLDER)
    assert (shelf / FOLDER).is_dir()


def test_a_folder_too_deep_is_told(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shelf / f"{FOLDER}.deleting").mkdir()

    def too_deep(*_: object, **__: object) -> None:
        raise RecursionError

    monkeypatch.setattr("shutil.rmtree", too_deep)
    assert "nested too deeply" in remove_leftovers(shelf).complaints[0]
