"""Which checkpoints a launch with `--eval-only` takes, what it asks of them, and its own folder."""

import json
from pathlib import Path

import pytest

from megatron_patches.artefacts.folders import checkpoint_name
from megatron_patches.artefacts.inventory.weights import weights_of
from megatron_patches.artefacts.manifest import MANIFEST, Manifest, build_manifest, record_file, write_manifest
from megatron_patches.artefacts.run_folder import CONFIG, RunFolder
from megatron_patches.errors import Damaged, Missing, Refused
from megatron_patches.evaluation.eval_only.asked import (
    ALL,
    NEWEST,
    asked_of,
    choose_checkpoints,
    chosen_checkpoints,
    make_folder,
)
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import to_yaml
from tests.small_training import SmallData, overrides


def add_checkpoint(run: RunFolder, config: RunConfig, step: int, weights: bool = False) -> Manifest:
    folder = run.checkpoints / checkpoint_name(step, "weights" if weights else "full")
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(to_yaml(config))
    facts = {"run": config.name, "step": step, "tokens": step * 128, **({"content": "weights"} if weights else {})}
    parents = ["0" * 64] if weights else []
    made = build_manifest("checkpoint", [record_file(folder / CONFIG, folder)], facts, parents)
    write_manifest(folder / MANIFEST, made)
    return made


@pytest.fixture
def config(small_data: SmallData, tmp_path: Path) -> RunConfig:
    return small_data.run(tmp_path, overrides(model__position_embedding="rotary"))


@pytest.fixture
def run(config: RunConfig, tmp_path: Path) -> RunFolder:
    """Checkpoints of steps 3, 6 and 8, of 6 the weights too, of 2 the weights alone."""
    run = RunFolder(tmp_path / "runs" / config.name)
    for step in (3, 6, 8):
        add_checkpoint(run, config, step)
    for step in (2, 6):
        add_checkpoint(run, config, step, weights=True)
    return run


def names(run: RunFolder, which: str, problems: list[str]) -> list[str]:
    return [folder.name for folder in choose_checkpoints(run, which, False, problems.append)]


def test_the_newest_a_step_or_all(run: RunFolder) -> None:
    problems: list[str] = []
    assert names(run, NEWEST, problems) == ["step-0000000008"]
    assert names(run, "6", problems) == ["step-0000000006"]
    assert names(run, "2", problems) == ["weights-0000000002"]
    every = ["weights-0000000002", "step-0000000003", "step-0000000006", "step-0000000008"]
    assert names(run, ALL, problems) == every
    assert problems == []


def test_what_is_not_whole_is_passed_over_and_told(run: RunFolder) -> None:
    for step in (6, 8):
        (run.checkpoints / checkpoint_name(step) / CONFIG).write_text("shorter")
    problems: list[str] = []
    assert names(run, NEWEST, problems) == ["weights-0000000006"]
    assert [f"step-000000000{step}" in told for step, told in zip((8, 6), problems, strict=True)] == [True, True]
    with pytest.raises(Damaged, match=r"no whole checkpoint to validate: .*step-0000000008.*name another step"):
        names(run, "8", problems)


def test_what_there_is_not(run: RunFolder) -> None:
    with pytest.raises(Missing, match="no checkpoint of step 7; it has those of 2, 3, 6, 8"):
        names(run, "7", [])
    with pytest.raises(Refused, match=r"--eval-only newest: give nothing for the newest checkpoint, a step"):
        names(run, "newest", [])
    with pytest.raises(Missing, match="has no checkpoints; train the run"):
        names(RunFolder(run.path / "nothing"), ALL, [])


def test_labels_say_what_differs_from_the_checkpoint(
    run: RunFolder, config: RunConfig, small_data: SmallData, tmp_path: Path
) -> None:
    full, alone = run.checkpoints / checkpoint_name(8), run.checkpoints / checkpoint_name(2, "weights")
    same = asked_of(full, config)
    assert (same.task.label, same.config.evaluation) == ("validation", config.evaluation)
    assert (same.evaluated.step, same.evaluated.tokens, same.evaluated.run) == (8, 1024, config.name)
    assert same.parents == [same.manifest.id, weights_of(same.manifest).id]
    assert asked_of(alone, config).parents == [asked_of(alone, config).manifest.id, "0" * 64]

    words = overrides(
        model__position_embedding="rotary", data__sequence_length=32, evaluation__samples=5, training__seed=1,
        training__micro_batch_size=4,
    )  # fmt: skip
    other = asked_of(full, small_data.run(tmp_path / "other", words))
    assert other.task.label == "validation.limit-5.length-32"
    assert (other.config.data.sequence_length, other.config.training.micro_batch_size) == (16, 4)
    assert other.config.training.seed == config.training.seed


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--model.layers=2", r"model.layers is 4 in it and 2 now; give the launch .*\(--model.layers VALUE\)"),
        ("--objective.name=prefix_lm", r"objective.name is \"causal\" in it and \"prefix_lm\" now"),
    ],
)
def test_another_model_is_refused(run: RunFolder, small_data: SmallData, tmp_path: Path, word: str, said: str) -> None:
    launched = small_data.run(tmp_path / "other", [*overrides(model__position_embedding="rotary"), word])
    with pytest.raises(Refused, match=said):
        asked_of(run.checkpoints / checkpoint_name(8), launched)


def test_its_folder_is_no_launch_of_the_run(run: RunFolder, config: RunConfig) -> None:
    folders = choose_checkpoints(run, ALL, False, print)
    first, second = make_folder(run, config, folders, {"pid": 7}), make_folder(run, config, folders[:1], {})
    assert [first.name, second.name] == ["eval-only-0001", "eval-only-0002"]
    assert chosen_checkpoints(first) == folders
    assert json.loads((first / "owner.json").read_text()) == {"pid": 7}
    assert not run.launches.exists()
    assert {path.name for path in run.logs.iterdir()} == {first.name, second.name}
    (first / "checkpoints.json").write_text('{"checkpoints": ["../../elsewhere"]}')
    with pytest.raises(Damaged, match="names no checkpoints; launch the evaluation again"):
        chosen_checkpoints(first)
