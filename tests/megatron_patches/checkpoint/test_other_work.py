"""A launch says what it does not resume from, and begins at step 0 beside such work only where that was asked for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_patches.artefacts.branch import Beginning, record_beginning
from megatron_patches.artefacts.manifest import MANIFEST, Status, read_manifest, write_manifest
from megatron_patches.artefacts.marks import mark_damaged
from megatron_patches.artefacts.run_folder import FOLDERS, RunFolder, folder_problems
from megatron_patches.checkpoint.other_work import OtherWork, from_scratch_problems, other_work, told_together
from tests.small_artefacts import RUN, make_artefact, make_checkpoint

RATES = {"learning_rate": 0.1, "next_learning_rate": 0.1, "optimizer_steps": 3}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / RUN / "checkpoints").mkdir(parents=True)
    return RunFolder(tmp_path / RUN)


def whole(run: RunFolder, step: int = 3) -> Path:
    make_checkpoint(run.path.parent, step, **RATES)
    return run.checkpoints / f"step-{step:010d}"


def weights(run: RunFolder) -> None:
    make_artefact(run.checkpoints / "weights-0000000003", "checkpoint", {"w": b"1"}, {"step": 3, "content": "weights"})


def without_manifest(run: RunFolder) -> None:
    (whole(run) / MANIFEST).unlink()


def truncated(run: RunFolder) -> None:
    os.truncate(whole(run) / "weights-00000.safetensors", 10)


def marked_damaged(run: RunFolder) -> None:
    mark_damaged(whole(run), "a bit is another one")


def invalid(run: RunFolder) -> None:
    path = whole(run) / MANIFEST
    status = Status(state="invalid", reason="diverged", date="2026-01-01", cause="0" * 64)
    write_manifest(path, read_manifest(path).model_copy(update={"status": status}))


def replaced(run: RunFolder) -> None:
    whole(run).rename(run.checkpoints / "step-0000000003.replaced-1")


def spoilt(run: RunFolder) -> None:
    truncated(run)
    (run.checkpoints / "step-0000000003").rename(run.checkpoints / "step-0000000003.replaced-1")


def pulling(run: RunFolder) -> None:
    (run.checkpoints / "step-0000000003.pulling").mkdir()


def elsewhere(run: RunFolder) -> None:
    make_artefact(run.elsewhere / "step-0000000003-0123abcd", "checkpoint", {}, {"step": 3})


def dangling(run: RunFolder) -> None:
    (run.checkpoints / "step-0000000003").symlink_to("/nowhere/moved")


def file(run: RunFolder) -> None:
    (run.checkpoints / "step-0000000003").write_text("a file")


def no_numbers(run: RunFolder) -> None:
    make_checkpoint(run.path.parent, 3)


def later_version(run: RunFolder) -> None:
    (whole(run) / MANIFEST).write_text('{"format": 2}')


WORK: dict[str, tuple[Callable[[RunFolder], None], str]] = {
    "weights alone": (weights, "checkpoints/weights-0000000003 (weights alone, without the optimizer's state)"),
    "no manifest": (without_manifest, "does not exist: the artefact has no manifest"),
    "truncated": (truncated, "weights-00000.safetensors has 10 bytes"),
    "marked damaged": (marked_damaged, "it was found damaged when it was read last"),
    "invalid": (invalid, "marks this checkpoint invalid since 2026-01-01: diverged"),
    "replaced": (replaced, "checkpoints/step-0000000003.replaced-1 (a later save replaced it)"),
    "damaged and replaced": (spoilt, "checkpoints/step-0000000003.replaced-1 (damaged; a later save replaced it)"),
    "an interrupted pull": (pulling, "a pull that was interrupted; the same pull goes on with it"),
    "elsewhere": (elsewhere, "elsewhere/step-0000000003-0123abcd (its manifest; the files lie elsewhere"),
    "a link to nothing": (dangling, "a link to /nowhere/moved, where no folder lies"),
    "a file": (file, "(no folder; restore it, or remove it)"),
    "no numbers": (no_numbers, "learning_rate is None, where a number is expected"),
    "of a later version": (later_version, "is of format 2, which a later Trainyard wrote"),
}


@pytest.mark.parametrize("kind", WORK)
def test_work_that_is_not_resumed_from_is_named_and_a_start_beside_it_refused(kind: str, run: RunFolder) -> None:
    make, told = WORK[kind]
    make(run)
    (found,) = other_work(run, allow_inherited_fault=False)
    assert told in str(found) and found.step == 3
    (problem,) = from_scratch_problems(run, [found], allowed=False)
    assert problem.startswith(f"{run.path} holds work and no checkpoint that can be resumed from: {found}. ")
    for remedy in ("tools/sync-to-hub pull", "tools/runs new", "--checkpoint.allow_from_scratch true"):
        assert remedy in problem
    assert list(from_scratch_problems(run, [found], allowed=True)) == []
    assert other_work(run, allow_inherited_fault=False, above=3) == []


def test_what_a_launch_left_behind_is_told_so_and_is_no_reason_to_refuse(run: RunFolder) -> None:
    for step in (3, 6, 9):
        whole(run, step)
    (run.checkpoints / "step-0000000009").rename(run.checkpoints / "step-0000000009.replaced-1")
    weights(run)
    (run.launches / "0004").mkdir(parents=True)
    record_beginning(run.launches / "0004", Beginning(4, 2, None, rollback=True))
    found = other_work(run, allow_inherited_fault=False)
    why = "left behind: rollback 4 went back to step 2"
    assert [str(each).removeprefix("checkpoints/") for each in found] == [
        f"step-0000000009.replaced-1 ({why}; a later save has its name)",
        f"step-0000000006 ({why})",
        f"weights-0000000003 ({why})",
        f"step-0000000003 ({why})",
    ]
    assert list(from_scratch_problems(run, found, allowed=False)) == []


def test_a_killed_save_is_told_and_asks_for_nothing(run: RunFolder) -> None:
    (run.checkpoints / "step-0000000003.0001.saving").mkdir()
    (run.checkpoints / "notes.txt").write_text("a person's own")
    (found,) = other_work(run, allow_inherited_fault=False)
    assert "a save that was killed" in str(found)
    assert list(from_scratch_problems(run, [found], allowed=False)) == []


def test_what_is_whole_is_no_other_work_and_much_is_shortened(run: RunFolder) -> None:
    whole(run)
    assert other_work(run, allow_inherited_fault=False) == []
    assert other_work(RunFolder(run.path / "nowhere"), allow_inherited_fault=False) == []
    for step in range(10, 20):
        (run.checkpoints / f"weights-{step:010d}").mkdir()
    (problem,) = from_scratch_problems(run, other_work(run, False), allowed=False)
    assert "weights-0000000019 (" in problem and "weights-0000000014" not in problem and "; and 5 others. " in problem


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_or_a_lost_link_in_a_folders_place_is_told(name: str, run: RunFolder, tmp_path: Path) -> None:
    path = run.path / name
    if path.exists():
        path.rmdir()
    path.write_text("a file")
    assert list(folder_problems(run)) == [f"{path} is a file, where a folder is expected; move it away"]
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    (problem,) = folder_problems(run)
    assert problem.startswith(f"{path} is a link to {tmp_path / 'nowhere'}, where nothing lies: restore that folder")
    (tmp_path / "nowhere").mkdir()
    assert list(folder_problems(run)) == []


def test_odd_files_of_a_run_are_told(run: RunFolder, tmp_path: Path) -> None:
    os.mkfifo(run.manifest)
    run.config.mkdir()
    config, manifest = folder_problems(run)
    assert "config.yaml is a folder, where a file is expected" in config and "is a pipe, socket or device" in manifest
    (tmp_path / "other").write_text("a file")
    (alone,) = folder_problems(RunFolder(tmp_path / "other"))
    assert alone == f"{tmp_path / 'other'} is a file, where a folder is expected; move it away"


def test_many_of_one_kind_are_told_in_one_line() -> None:
    left = [
        OtherWork(f"checkpoints/step-{step:010d}", step, "left behind", is_work=False) for step in range(90, 0, -10)
    ]
    other = OtherWork("checkpoints/weights-0000000095", 95, "weights alone")
    assert told_together([other, *left]) == [
        "checkpoints/weights-0000000095 (weights alone)",
        "9 entries, checkpoints/step-0000000090 to checkpoints/step-0000000010 (left behind)",
    ]
    assert told_together(left[:2]) == [str(each) for each in left[:2]]
