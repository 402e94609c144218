"""Exports that evaluations are asked of: reused where they are whole, else made and removed."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from megatron_patches.artefacts.evaluations.processes import here
from megatron_patches.artefacts.folders import checkpoint_name
from megatron_patches.artefacts.inventory.weights import is_optimizer_file
from megatron_patches.artefacts.manifest import MANIFEST, read_manifest, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.evaluation import exports
from megatron_patches.evaluation.exports import EVALUATING, export_of, kept_export, remove_leftovers
from megatron_patches.evaluation.selection import Candidate, candidate_at
from megatron_patches.run.config import RunConfig
from tests.small_artefacts import RUN, make_artefact, make_checkpoint

FACTS = {"format": "transformers", "weights": "stored", "run": RUN, "step": 100}
NO_CONFIG = cast("RunConfig", None)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    make_checkpoint(tmp_path, 100, size=10)
    return RunFolder(tmp_path / RUN)


@pytest.fixture
def candidate(run: RunFolder) -> Candidate:
    return candidate_at(run.checkpoints / checkpoint_name(100))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Where exports were made, in place of making any."""
    targets: list[Path] = []

    def make(run: RunFolder, candidate: Candidate, config: RunConfig, target: Path, hear: Any) -> Path:
        targets.append(target)
        target.mkdir(parents=True)
        return target

    monkeypatch.setattr(exports, "_made", make)
    yield targets


def make_export(run: RunFolder, parent: str, **facts: Any) -> Path:
    folder = run.exports / "hf-step-0000000100"
    make_artefact(folder, "export", {"config.json": b"{}", "card.json": b"{}"}, {**FACTS, **facts}, (parent,))
    return folder


def silence(text: str) -> None:
    raise AssertionError(text)


def test_one_that_is_there_is_taken_and_stays(run: RunFolder, candidate: Candidate, made: list[Path]) -> None:
    folder = make_export(run, candidate.manifest.id)
    with export_of(run, candidate, NO_CONFIG, False, silence) as found:
        assert found == folder
    assert folder.is_dir()
    assert made == []


def test_of_a_steps_weights_it_serves_too(run: RunFolder, candidate: Candidate) -> None:
    folder = make_export(run, candidate.ids[1])
    assert kept_export(run, candidate) == folder


def damage(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"[]")


def invalidate(folder: Path) -> None:
    manifest = read_manifest(folder / MANIFEST)
    status = manifest.status.model_copy(update={"state": "invalid", "reason": "a spike"})
    write_manifest(folder / MANIFEST, manifest.model_copy(update={"status": status}))


def take_its_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(damage, "config.json"), (invalidate, "marked invalid"), (take_its_manifest, "no whole export")],
)
def test_one_that_cannot_be_used(
    run: RunFolder, candidate: Candidate, made: list[Path], spoil: Any, message: str
) -> None:
    """Another one is made beside it, but where it would need its place."""
    spoil(make_export(run, candidate.manifest.id))
    heard: list[str] = []
    with export_of(run, candidate, NO_CONFIG, False, heard.append) as found:
        assert found.is_dir()
    assert (made, [message in each for each in heard]) == ([found], [True])
    with pytest.raises((Damaged, Refused), match=message), export_of(run, candidate, NO_CONFIG, True, silence):
        pass


@pytest.mark.parametrize(
    ("facts", "parent"), [({"weights": "masters"}, None), ({"format": "other"}, None), ({}, "f" * 64)]
)
def test_one_of_something_else(run: RunFolder, candidate: Candidate, facts: dict[str, str], parent: str | None) -> None:
    make_export(run, parent or candidate.manifest.id, **facts)
    with pytest.raises(Refused, match="move it away"):
        kept_export(run, candidate)


@pytest.mark.parametrize("error", [None, TrainyardError("it fails"), KeyboardInterrupt(), SystemExit(143)])
def test_one_for_the_time_is_removed_whatever_happens(
    run: RunFolder, candidate: Candidate, made: list[Path], error: BaseException | None
) -> None:
    def evaluate() -> None:
        with export_of(run, candidate, NO_CONFIG, False, silence) as folder:
            assert folder.is_relative_to(run.exports / EVALUATING)
            if error is not None:
                raise error

    if error is None:
        evaluate()
    else:
        with pytest.raises(type(error)):
            evaluate()
    assert len(made) == 1
    assert not (run.exports / EVALUATING).exists()


def test_one_that_is_to_be_kept(run: RunFolder, candidate: Candidate, made: list[Path]) -> None:
    with export_of(run, candidate, NO_CONFIG, True, silence) as folder:
        assert folder == run.exports / "hf-step-0000000100"
    assert folder.is_dir()


def test_a_checkpoint_whose_bytes_changed_is_not_exported(
    run: RunFolder, candidate: Candidate, made: list[Path]
) -> None:
    (candidate.folder / "weights-00000.safetensors").write_bytes(b"0123456789")
    with pytest.raises(Damaged, match="restore the checkpoint"), export_of(run, candidate, NO_CONFIG, False, silence):
        pass
    assert made == []


def test_state_that_only_a_resume_needs_is_not_read(run: RunFolder, candidate: Candidate, made: list[Path]) -> None:
    damaged = [path for path in candidate.folder.iterdir() if is_optimizer_file(path.name)]
    assert damaged
    for path in damaged:
        path.write_bytes(path.read_bytes()[::-1] + b"x")
    with export_of(run, candidate, NO_CONFIG, False, silence) as folder:
        assert [folder] == made


def leave(run: RunFolder, name: str, owner: dict[str, Any]) -> Path:
    folder = run.exports / EVALUATING / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    folder.with_name(f"{name}.json").write_text(json.dumps(owner))
    return folder


def test_leftovers_of_processes_that_are_no_more(run: RunFolder) -> None:
    assert remove_leftovers(run) == []
    ended = subprocess.Popen(["true"])
    ended.wait()
    gone = leave(run, "step-0000000100-aa", {**here(), "pid": ended.pid})
    living = leave(run, "step-0000000100-bb", here())
    elsewhere = leave(run, "step-0000000100-cc", {**here(), "host": "node7", "boot": "another"})
    assert remove_leftovers(run) == []
    assert [each.exists() for each in (gone, living, elsewhere)] == [False, True, True]
    assert not gone.with_name(f"{gone.name}.json").exists()


def test_a_leftover_that_says_nothing_is_told(run: RunFolder) -> None:
    folder = leave(run, "step-0000000100-aa", {})
    folder.with_name(f"{folder.name}.json").write_text("[]")
    [complaint] = remove_leftovers(run)
    assert "cannot be removed" in complaint
    shutil.rmtree(folder.parent)
