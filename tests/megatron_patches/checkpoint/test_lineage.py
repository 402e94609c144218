"""Each checkpoint of a run names the one that it came from, through stops, rollbacks and what was left behind."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron_patches.artefacts.branch import BEGAN, Beginning, read_beginnings, record_beginning
from megatron_patches.artefacts.descent import Stretch, way_of
from megatron_patches.artefacts.folders import list_checkpoints, present_checkpoints
from megatron_patches.artefacts.inventory.weights import weights_of
from megatron_patches.artefacts.manifest import Manifest, content_id, read_manifest, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.events.reading import read_events
from megatron_patches.run.config import RunConfig
from megatron_patches.run.run_directory import Launch, start_launch
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides, train_launch


def of_step(run: RunFolder, name: str) -> Manifest:
    return read_manifest(run.checkpoints / name / "manifest.json")


def step(run: RunFolder, number: int) -> Manifest:
    return of_step(run, f"step-{number:010d}")


def train_once(config: RunConfig, stop_in: int | None = None) -> Launch:
    """A launch in this process; a given step asks for a stop behind it."""
    from megatron_patches.objectives.batches import TrainingBatches

    read, started = TrainingBatches.at, start_launch(config)

    def read_and_signal(self: TrainingBatches, consumed: int):  # type: ignore[no-untyped-def]
        if stop_in is not None and consumed == (stop_in - 1) * 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(self, consumed)

    TrainingBatches.at = read_and_signal  # type: ignore[method-assign]
    try:
        train_launch(str(started.directory))
    finally:
        TrainingBatches.at = read  # type: ignore[method-assign]
    return started


@pytest.fixture
def config(small_data: SmallData, tmp_path: Path) -> RunConfig:
    rules = overrides(checkpoint__every_steps=2, checkpoint__weights_every_steps=4, checkpoint__keep_last=2)
    return small_data.run(tmp_path, rules)


def in_one_process(launches: Callable[[RunConfig], None], config: RunConfig, runs: Path) -> None:
    """A process that is made for torch costs more than all of its launches."""
    run_on_ranks(carry_out, 1, launches, config, str(runs))


def carry_out(launches: Callable[[RunConfig], None], config: RunConfig, runs: str) -> None:
    os.environ["TRAINYARD_RUNS"] = runs
    launches(config)


def without_lineage(run: RunFolder, number: int) -> Manifest:
    """Make a checkpoint one of an earlier version."""
    manifest = step(run, number)
    facts = {name: value for name, value in manifest.facts.items() if name not in ("branch", "run_id")}
    parents = manifest.parents[-2:]
    identity = content_id("checkpoint", parents, manifest.files, facts)
    old = manifest.model_copy(update={"facts": facts, "parents": parents, "id": identity})
    write_manifest(run.checkpoints / f"step-{number:010d}" / "manifest.json", old)
    for folder in run.launches.iterdir():
        (folder / BEGAN).unlink(missing_ok=True)
    return old


def stopped_rolled_back_and_continued(config: RunConfig) -> None:
    run = train_once(config, stop_in=3).run  # a stop behind step 4, which was saved at its interval
    identity = read_manifest(run.manifest).id
    second, fourth = step(run, 2), step(run, 4)
    data = [fourth.facts["identity"]["dataset"], fourth.facts["identity"]["tokenizer"]]  # type: ignore[index,call-overload]
    assert second.parents == data and fourth.parents == [second.id, *data]
    assert of_step(run, "weights-0000000004").model_dump(exclude={"created", "by"}) == weights_of(fourth).model_dump(
        exclude={"created", "by"}
    )
    train_once(config)
    assert step(run, 8).parents[0] == step(run, 6).id and step(run, 6).parents[0] == fourth.id
    assert not (run.checkpoints / "step-0000000004").exists(), "the rules keep two"
    assert list(way_of(step(run, 8).facts)) == [Stretch(identity, 2, 8), Stretch(identity, 1, 5)]
    assert of_step(run, "weights-0000000008").id == weights_of(step(run, 8)).id
    assert read_beginnings(run) == [Beginning(1, 0, None), Beginning(2, 4, fourth.id)]

    back = Beginning(3, 6, step(run, 6).id, rollback=True)
    left = step(run, 8)
    (run.launches / "0003").mkdir()
    record_beginning(run.launches / "0003", back)
    assert [folder.name for folder in present_checkpoints(run.checkpoints)] == ["step-0000000006"]
    train_once(config)
    messages = [event.facts["text"] for event in read_events(run.events) if event.kind == "message"]
    why = "left behind: rollback 3 went back to step 6"
    assert f"not resumed from: checkpoints/step-0000000008 ({why})" in messages
    assert any("resuming from step-0000000006" in text for text in messages)
    again = step(run, 8)
    assert again.id != left.id and again.parents[0] == step(run, 6).id
    assert list(way_of(again.facts)) == [*(Stretch(identity, 4, 8), Stretch(identity, 2, 7), Stretch(identity, 1, 5))]
    aside = run.checkpoints / "step-0000000008.replaced-1"
    assert read_manifest(aside / "manifest.json").id == left.id, "it stays until somebody clears it away"
    assert [folder.name for folder in list_checkpoints(run.checkpoints)] == ["step-0000000008", "step-0000000006"]


def resumed_from_an_earlier_version(config: RunConfig) -> None:
    run = train_once(config, stop_in=3).run
    old = without_lineage(run, 4)
    launch = train_once(config)
    assert json.loads((launch.directory / BEGAN).read_text())["checkpoint"] == old.id
    sixth = step(run, 6)
    assert sixth.parents[0] == old.id and list(way_of(sixth.facts))[1:] == [old.id]


@pytest.mark.parametrize("launches", [stopped_rolled_back_and_continued, resumed_from_an_earlier_version])
def test_each_checkpoint_names_the_one_it_came_from(
    launches: Callable[[RunConfig], None], config: RunConfig, tmp_path: Path
) -> None:
    in_one_process(launches, config, tmp_path / "runs")
