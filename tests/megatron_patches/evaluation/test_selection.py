"""Which checkpoints of a run are meant to be evaluated."""

import shutil
from pathlib import Path

import pytest

from megatron_patches.artefacts.branch import Beginning, record_beginning
from megatron_patches.artefacts.folders import checkpoint_name, list_checkpoints
from megatron_patches.artefacts.inventory.weights import weights_of
from megatron_patches.artefacts.manifest import MANIFEST, read_manifest, write_manifest
from megatron_patches.artefacts.reference import parse_reference
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.evaluation.selection import Which, candidate_at, parse_which, select, which_named
from tests.small_artefacts import RUN, make_checkpoint


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Checkpoints of 128 tokens a step."""
    for step in (100, 200, 300, 400, 500):
        make_checkpoint(tmp_path, step, size=10)
    return RunFolder(tmp_path / RUN)


def chosen(run: RunFolder, text: str) -> list[int]:
    return [each.step for each in select(run, parse_which(text)).candidates]


def folder(run: RunFolder, step: int) -> Path:
    return run.checkpoints / checkpoint_name(step)


def mark_invalid(path: Path) -> None:
    manifest = read_manifest(path / MANIFEST)
    status = manifest.status.model_copy(update={"state": "invalid", "reason": "a spike"})
    write_manifest(path / MANIFEST, manifest.model_copy(update={"status": status}))


def keep_weights_alone(run: RunFolder, step: int, move: bool = True) -> Path:
    full = folder(run, step)
    weights = full.with_name(checkpoint_name(step, "weights"))
    shutil.copytree(full, weights)
    for file in weights.glob("optimizer*"):
        file.unlink()
    write_manifest(weights / MANIFEST, weights_of(read_manifest(full / MANIFEST)))
    if move:
        shutil.rmtree(full)
    return weights


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("all", [100, 200, 300, 400, 500]),
        ("new", [100, 200, 300, 400, 500]),
        ("last", [500]),
        ("200", [200]),
        ("400,200", [200, 400]),
        ("150:400", [200, 300, 400]),
        ("450:", [500]),
        ("100,400:", [100, 400, 500]),
        ("600:", []),
        ("every-200", [200, 400]),
        ("every:200", [200, 400]),
        ("every 250", [300, 500]),
        ("every-150", [200, 300, 500]),
        ("every-20K", [200, 400, 500]),
        ("every-12.8K", [100, 200, 300, 400, 500]),
        ("every-1B", []),
        ("every-600", []),
    ],
)
def test_words(run: RunFolder, text: str, steps: list[int]) -> None:
    assert chosen(run, text) == steps


@pytest.mark.parametrize(
    "text", ["", "each", "every", "every-", "every-0", "every-1.5", "every-0B", "5:1", "1,,2", "-5", ":", "1e3", "7X"]
)
def test_what_is_no_word(text: str) -> None:
    with pytest.raises(TrainyardError, match="--steps"):
        parse_which(text)


def test_a_reference_means_the_same(run: RunFolder) -> None:
    for text, which in (
        ("tr9@200", parse_which("200")),
        ("tr9@best", Which("best")),
        ("tr9@gold", Which("gold")),
        ("tr9@best:mmlu.acc", parse_which("best:mmlu.acc")),
        ("tr9@200/weights", Which("ranges", ranges=((200, 200),), weights_only=True)),
    ):
        reference = parse_reference(text)
        assert reference is not None
        assert which_named(reference) == which


def test_the_best_by_its_validation_loss(tmp_path: Path) -> None:
    for step, loss in ((100, 3.0), (200, 2.0), (300, 2.5)):
        make_checkpoint(tmp_path, step, size=10, validation_loss=loss)
    assert chosen(RunFolder(tmp_path / RUN), "best") == [200]


def test_without_a_best_one(run: RunFolder) -> None:
    with pytest.raises(Missing, match="validation loss"):
        chosen(run, "best")


@pytest.mark.parametrize("text", ["7", "100,7"])
def test_a_step_that_is_not_there(run: RunFolder, text: str) -> None:
    with pytest.raises(Missing, match="no checkpoint of step 7; it has those of 100, 200, 300, 400, 500"):
        chosen(run, text)


def test_a_run_without_checkpoints(tmp_path: Path) -> None:
    assert chosen(RunFolder(tmp_path), "new") == []
    with pytest.raises(Missing, match="no checkpoints here"):
        chosen(RunFolder(tmp_path), "100")


def test_damaged_and_invalid_ones_are_told_and_passed_over(run: RunFolder) -> None:
    (folder(run, 200) / "weights-00000.safetensors").unlink()
    mark_invalid(folder(run, 300))
    found = select(run, parse_which("all"))
    assert [each.step for each in found.candidates] == [100, 400, 500]
    first, second = found.passed_over
    assert "weights-00000.safetensors" in first
    assert "a spike" in second


def test_those_that_are_named_are_refused(run: RunFolder) -> None:
    (folder(run, 200) / "weights-00000.safetensors").unlink()
    mark_invalid(folder(run, 300))
    with pytest.raises(Damaged, match=r"weights-00000\.safetensors"):
        chosen(run, "200")
    with pytest.raises(Refused, match="a spike"):
        chosen(run, "100,300")
    assert chosen(run, "200:400") == [400]


def test_those_left_behind_are_taken_where_they_are_named(run: RunFolder) -> None:
    launch = run.launches / "0002"
    launch.mkdir(parents=True)
    record_beginning(launch, Beginning(2, 300, read_manifest(folder(run, 300) / MANIFEST).id, rollback=True))
    assert chosen(run, "all") == [100, 200, 300]
    assert chosen(run, "last") == [300]
    assert chosen(run, "100,400") == [100, 400]


def test_weights_alone_stand_for_a_step(run: RunFolder) -> None:
    weights = keep_weights_alone(run, 200)
    both = keep_weights_alone(run, 300, move=False)
    found = {each.step: each for each in select(run, parse_which("all")).candidates}
    assert found[200].folder == weights
    assert found[300].folder == folder(run, 300)
    assert found[300].ids == (found[300].manifest.id, candidate_at(both).manifest.id)
    assert set(found[300].ids) == set(candidate_at(both).ids)
    (folder(run, 300) / "weights-00000.safetensors").unlink()
    again = select(run, parse_which("300"))
    assert [each.folder for each in again.candidates] == [both]


def test_weights_that_are_named(run: RunFolder) -> None:
    weights = keep_weights_alone(run, 300, move=False)
    reference = parse_reference(f"{RUN}@300/weights")
    assert reference is not None
    assert [each.folder for each in select(run, which_named(reference)).candidates] == [weights]
    assert len(list_checkpoints(run.checkpoints)) == 5


def test_tokens_that_are_not_on_record(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 100, size=10, tokens=None)
    make_checkpoint(tmp_path, 200, size=10)
    [found] = select(RunFolder(tmp_path / RUN), parse_which("every-10K")).candidates
    assert (found.step, found.tokens) == (200, 25600)
