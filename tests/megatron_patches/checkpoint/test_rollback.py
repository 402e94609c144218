"""A run that goes back and leaves samples out ends as one told so from the start; a crash repeats an interval."""

import signal
from pathlib import Path

import pytest

from megatron_patches.artefacts.folders import list_checkpoints
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.events.reading import effective, read_events
from megatron_patches.launch.facts import LaunchTarget
from megatron_patches.launch.plan import launch, plan_run, summary
from tests.megatron_patches.checkpoint.test_resume import losses, stored_bytes, train_and_signal
from tests.ranks import RankFailed, run_on_ranks
from tests.small_training import SmallData, overrides, train_launch
from tools.commands.runs.rollback import perform, plan_rollback, rebuild_pictures

LAYOUTS = {"one process": [], "TP2 PP2": overrides(parallel__tensor=2, parallel__pipeline=2)}


def planned_launch(path: Path, runs: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, int, str]:
    """As `slurm/launch` begins one: its folder, how many ranks it has, and what it says before."""
    monkeypatch.setenv("TRAINYARD_RUNS", str(runs))
    plan = plan_run(path, words, LaunchTarget(nodes=None, gpu=False, gpu_models=()))
    return launch(plan)["launch_directory"], plan.layout.world_size, summary(plan)


def train(path: Path, runs: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[RunFolder, str]:
    folder, ranks, said = planned_launch(path, runs, words, monkeypatch)
    run_on_ranks(train_launch, ranks, folder)
    return RunFolder(Path(folder).parents[1]), said


def skipped_before(folder: Path) -> int:
    skipped = read_manifest(folder / "manifest.json").facts["skipped_samples"]
    assert isinstance(skipped, int)
    return skipped


def shown_by_tensorboard(run: RunFolder) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run.tensorboard))
    board.Reload()
    names = {"training/loss", "validation/loss"} & set(board.Tags()["scalars"])
    return {name: [(each.step, each.value) for each in board.Scalars(name)] for name in names}


def told_by_events(run: RunFolder) -> dict[str, list[tuple[int, object]]]:
    events = read_events(run.events)
    kinds = {"training/loss": "step", "validation/loss": "validation"}
    return {
        name: [(each.facts["step"], pytest.approx(each.facts["loss"], rel=1e-6)) for each in effective(events, kind)]
        for name, kind in kinds.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_rollback_that_skips_equals_a_run_told_so_from_the_start(
    layout: str, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_data.write(tmp_path / "tr900-tests", "tr900a-28K-small")
    words = LAYOUTS[layout]
    told, said = train(path, tmp_path / "told", [*words, "--data.skip_samples=[[24, 40], [60, 61]]"], monkeypatch)
    assert "17 samples left out, not counted in the tokens planned: 24:40, 60:61 (data.skip_samples)" in said

    run, said = train(path, tmp_path / "back", words, monkeypatch)
    assert "skipped data" not in said
    rollback = plan_rollback(run, "3", ["60:61"], ["4:6"])
    assert rollback.as_json()["skipped"] == 17 and rollback.abandoned == (8, 6)
    perform(rollback, "a spike at step 5")
    rebuild_pictures(rollback)
    assert [(name, [step for step, _ in found]) for name, found in shown_by_tensorboard(run).items()] == [
        ("training/loss", [1, 2, 3])
    ]
    assert [folder.name[-1] for folder in list_checkpoints(run.checkpoints)] == ["8", "6", "3"], "nothing is deleted"

    train(path, tmp_path / "back", words, monkeypatch)
    assert [each.facts["step"] for each in read_events(run.events, ("start",))] == [0, 3, 3]
    assert losses(run) == losses(told)
    for step in ("step-0000000006", "step-0000000008"):
        assert stored_bytes(run.checkpoints / step) == stored_bytes(told.checkpoints / step)
        assert skipped_before(run.checkpoints / step) == skipped_before(told.checkpoints / step) > 0
    assert skipped_before(run.checkpoints / "step-0000000003") == 0
    assert shown_by_tensorboard(run) == told_by_events(run)


def test_a_crash_at_69_of_100_repeats_at_most_an_interval(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_data.write(tmp_path / "tr900-tests", "tr900a-28K-small")
    words = ["--evaluation=null", *overrides(training__steps=100, checkpoint__every_steps=10, data__max_epochs=2)]
    undisturbed, _ = train(path, tmp_path / "whole", words, monkeypatch)
    # the checkpoint of step 60 is whole when step 61 begins, however slow the disk
    folder, ranks, _ = planned_launch(
        path, tmp_path / "crashed", [*words, "--checkpoint.asynchronous=false"], monkeypatch
    )
    with pytest.raises(RankFailed):
        run_on_ranks(train_and_signal, ranks, folder, 70, signal.SIGKILL, 0)
    crashed, _ = train(path, tmp_path / "crashed", words, monkeypatch)
    events = read_events(crashed.events)
    assert [each.facts["step"] for each in events if each.kind == "start"] == [0, 60]
    assert len([each for each in events if each.kind == "step"]) - 100 == 9, "steps 61 to 69 are repeated"
    assert losses(crashed) == losses(undisturbed)
    last = "step-0000000100"
    assert stored_bytes(crashed.checkpoints / last) == stored_bytes(undisturbed.checkpoints / last)
