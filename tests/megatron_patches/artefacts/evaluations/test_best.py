"""Which checkpoint is the best by an evaluation."""

from pathlib import Path

import pytest

from megatron_patches.artefacts.branch import Beginning, record_beginning
from megatron_patches.artefacts.descent import descent_of_launch
from megatron_patches.artefacts.evaluations.best import best_evaluated
from megatron_patches.artefacts.evaluations.present import on_present_branch
from megatron_patches.artefacts.evaluations.shelf import list_evaluations
from megatron_patches.artefacts.inventory.weights import weights_of
from megatron_patches.artefacts.manifest import (
    Manifest,
    Status,
    build_manifest,
    read_manifest,
    write_manifest,
)
from megatron_patches.artefacts.marks import mark_damaged
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Missing, Refused
from tests.small_artefacts import RUN, make_checkpoint
from tests.small_evaluations import evaluate, make_result


@pytest.fixture
def evaluated(tmp_path: Path, run: RunFolder) -> dict[int, Manifest]:
    """Steps 10 to 40 with accuracies 0.2, 0.4, 0.4 and 0.3, and a loss that falls."""
    found = {step: make_checkpoint(tmp_path, step) for step in (10, 20, 30, 40)}
    for (step, manifest), accuracy in zip(found.items(), (0.2, 0.4, 0.4, 0.3), strict=True):
        evaluate(tmp_path, make_result(manifest, "mmlu", parts={"anatomy": step / 100}, acc=accuracy))
        evaluate(tmp_path, make_result(manifest, "text", higher_is_better=False, perplexity=100.0 - step))
    return found


def mark(path: Path, state: str = "invalid") -> None:
    status = Status(state=state, reason="a spike", date="2026-11-02T00:00:00+00:00")  # type: ignore[arg-type]
    write_manifest(path, read_manifest(path).model_copy(update={"status": status}))


@pytest.mark.parametrize(
    ("name", "step"), [("mmlu.acc", 20), ("mmlu.anatomy.acc", 40), ("text.perplexity", 40)], ids=str
)
def test_the_direction_is_the_metrics_own_and_of_equal_ones_the_earlier_counts(
    run: RunFolder, evaluated: dict[int, Manifest], name: str, step: int
) -> None:
    found = best_evaluated(run, name)
    assert found.folder == run.checkpoints / f"step-{step:010d}"
    assert found.result.step == step


def test_what_is_invalid_damaged_or_gone_is_not_chosen(run: RunFolder, evaluated: dict[int, Manifest]) -> None:
    mark(run.path / "evals" / "step-0000000020" / "manifest.json")
    assert best_evaluated(run, "mmlu.acc").result.step == 30
    mark_damaged(run.checkpoints / "step-0000000030", "a bit")
    assert best_evaluated(run, "mmlu.acc").result.step == 40
    mark(run.checkpoints / "step-0000000040" / "manifest.json")
    assert best_evaluated(run, "mmlu.acc").result.step == 10
    (run.checkpoints / "step-0000000010" / "config.yaml").unlink()
    with pytest.raises(Missing, match=r"of steps 10, 30, 40, and none of these checkpoints is here, whole"):
        best_evaluated(run, "mmlu.acc")


def test_an_evaluation_of_another_checkpoint_of_the_step_does_not_count(
    run: RunFolder, evaluated: dict[int, Manifest], tmp_path: Path
) -> None:
    make_checkpoint(tmp_path, 20, samples=161)
    assert best_evaluated(run, "mmlu.acc").result.step == 30


def test_weights_that_are_left_alone_have_their_checkpoints_evaluation(
    run: RunFolder, evaluated: dict[int, Manifest]
) -> None:
    full = run.checkpoints / "step-0000000020"
    alone = weights_of(evaluated[20])
    folder = run.checkpoints / "weights-0000000020"
    folder.mkdir()
    for file in alone.files:
        (full / file.path).rename(folder / file.path)
    write_manifest(folder / "manifest.json", alone)
    assert best_evaluated(run, "mmlu.acc").folder == folder
    assert best_evaluated(run, "mmlu.acc", among={run.checkpoints / "step-0000000030"}).result.step == 30


def test_a_checkpoint_whose_weights_were_evaluated(run: RunFolder, checkpoint: Manifest) -> None:
    alone = weights_of(checkpoint)
    full, folder = run.checkpoints / "step-0000000100", run.checkpoints / "weights-0000000100"
    folder.mkdir()
    for file in alone.files:
        (folder / file.path).hardlink_to(full / file.path)
    write_manifest(folder / "manifest.json", alone)
    evaluate(run.path.parent, make_result(alone))
    assert best_evaluated(run, "hellaswag.acc").folder == full


def test_several_definitions_are_named_and_refused(
    run: RunFolder, evaluated: dict[int, Manifest], tmp_path: Path
) -> None:
    evaluate(tmp_path, make_result(evaluated[40], "mmlu", definition="e" * 64, acc=0.9))
    with pytest.raises(Refused, match=r"2 definitions.*dddddddd .* steps 10, 20, 30; eeeeeeee .* steps 40") as error:
        best_evaluated(run, "mmlu.acc")
    assert "--again" in str(error.value)
    assert best_evaluated(run, "text.perplexity").result.step == 40, "of the other task it is no matter"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mmlu.acc_nrm", "nearest: mmlu.acc"),
        ("mmlu", "nearest: mmlu.acc, mmlu.anatomy.acc"),
        ("text.perplexty", "nearest: text.perplexity"),
    ],
)
def test_near_names_are_offered(run: RunFolder, evaluated: dict[int, Manifest], name: str, said: str) -> None:
    with pytest.raises(Missing, match=said):
        best_evaluated(run, name)


def test_a_run_without_evaluations(run: RunFolder, checkpoint: Manifest) -> None:
    with pytest.raises(Missing, match="tools/evals run makes one"):
        best_evaluated(run, "mmlu.acc")


def test_what_a_rollback_left_behind_is_not_chosen_also_where_its_checkpoints_are_gone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / RUN)
    of_run = build_manifest("run", [], {"run": RUN, "wandb_id": "0"})
    run.path.mkdir()
    write_manifest(run.manifest, of_run)

    def begin(launch: int, step: int, rollback: bool = False) -> None:
        (run.launches / f"{launch:04d}").mkdir(parents=True)
        record_beginning(run.launches / f"{launch:04d}", Beginning(launch, step, None, rollback))

    begin(1, 0)
    facts = descent_of_launch(of_run.id, 1, 0, None)
    for step, accuracy in ((10, 0.2), (20, 0.9), (30, 0.8)):
        evaluate(tmp_path, make_result(make_checkpoint(tmp_path, step, **facts), acc=accuracy))
    begin(2, 10, rollback=True)
    assert best_evaluated(run, "hellaswag.acc").result.step == 10
    for name in ("step-0000000020", "step-0000000030"):
        (run.checkpoints / name / "manifest.json").unlink()
    found = list_evaluations(run, [])
    assert [each.step for each in found] == [10, 20, 30]
    assert [each.step for each in on_present_branch(run, found)] == [10]
