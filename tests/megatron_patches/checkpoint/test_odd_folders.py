"""A run goes on, or says in a sentence why not, whatever its folder holds: links, odd checkpoints, nothing at all."""

import json
import os
import shutil
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.folders import checkpoint_name, list_checkpoints
from megatron_patches.artefacts.manifest import MANIFEST, build_manifest, read_manifest, record_file, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import TrainyardError
from megatron_patches.events.reading import read_events
from megatron_patches.launch.facts import LaunchTarget
from megatron_patches.launch.plan import plan_run
from megatron_patches.run.run_directory import Launch, start_launch
from tests.ranks import RankFailed, run_on_ranks
from tests.small_training import SmallData, overrides, train_launch

HERE = LaunchTarget(nodes=None, gpu=False, gpu_models=())
ALLOWED = overrides(checkpoint__allow_from_scratch="true")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def train(small_data: SmallData, tmp_path: Path, *settings: str, how: Callable[..., None] = train_launch) -> Launch:
    """Train to the end; every save is whole before the next step."""
    config = small_data.run(tmp_path, [*overrides(checkpoint__asynchronous="false"), *settings])
    started = start_launch(config)
    run_on_ranks(how, 1, str(started.directory))
    return started


def plan(tmp_path: Path, *settings: str) -> None:
    plan_run(tmp_path / "tr900-tests" / "tr900a-28K-small.yaml", settings, HERE)


def messages(launch: Launch) -> list[str]:
    events = [event for event in read_events(launch.run.events) if event.kind == "message"]
    return [event.facts["text"] for event in events if event.launch == launch.id]


def names(run: RunFolder) -> list[str]:
    return [path.name for path in list_checkpoints(run.checkpoints)]


def keep_weights_alone(run: RunFolder) -> None:
    """As `tools/sync-to-hub pull --weights-only` brings them."""
    for folder in list_checkpoints(run.checkpoints):
        shutil.rmtree(folder)


def test_weights_alone_are_told_and_a_start_beside_them_is_asked_for(
    small_data: SmallData, tmp_path: Path, runs: Path
) -> None:
    run = train(small_data, tmp_path, *overrides(checkpoint__weights_every_steps=4)).run
    keep_weights_alone(run)
    with pytest.raises(TrainyardError, match=r"weights-0000000008 \(weights alone.*allow_from_scratch true"):
        plan(tmp_path)
    before = len(list(run.launches.iterdir()))
    with pytest.raises(RankFailed, match="holds work and no checkpoint that can be resumed from"):
        train(small_data, tmp_path)
    plan(tmp_path, *ALLOWED)
    launch = train(small_data, tmp_path, *ALLOWED)
    assert len(list(run.launches.iterdir())) == before + 2
    told = [text for text in messages(launch) if text.startswith("not resumed from: ")]
    assert told == [
        f"not resumed from: checkpoints/weights-000000000{step} (weights alone, without the optimizer's state)"
        for step in (8, 4)
    ]
    again = train(small_data, tmp_path, *ALLOWED)
    assert any("resuming from step-0000000008" in text for text in messages(again)), "what is whole is resumed from"
    assert not [text for text in messages(again) if "not resumed" in text]


def break_all(run: RunFolder) -> None:
    for folder in list_checkpoints(run.checkpoints):
        path = folder / "optimizer-00000.safetensors"
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)


def test_damaged_ones_alone_can_be_left_behind(small_data: SmallData, tmp_path: Path, runs: Path) -> None:
    run = train(small_data, tmp_path).run
    break_all(run)
    with pytest.raises(RankFailed, match=r"all 3 checkpoints in .* are damaged .*allow_from_scratch true"):
        train(small_data, tmp_path)
    launch = train(small_data, tmp_path, *ALLOWED)  # they are marked by now, and are not read into the new weights
    assert sum("was found damaged before" in text for text in messages(launch)) == 3
    break_all(run)
    with pytest.raises(RankFailed, match="start the run again: it begins at step 0 beside them"):
        train(small_data, tmp_path, *ALLOWED)
    train(small_data, tmp_path, *ALLOWED)
    assert names(run)[0] == "step-0000000008"


def header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Another header before the same bytes."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    text = change(json.loads(content[8 : 8 + length]))
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def first_tensor(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    def change(entries: dict[str, Any]) -> dict[str, Any]:
        name = next(key for key in entries if key != "__metadata__")
        return {**entries, name: {**entries[name], **changes}}

    return change


def first_slice(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    def change(entries: dict[str, Any]) -> dict[str, Any]:
        slices = json.loads(entries["__metadata__"]["slices"])
        name = next(iter(slices))
        slices[name] |= changes
        return {**entries, "__metadata__": {"slices": json.dumps(slices)}}

    return change


def trainer(content: object) -> Callable[[Path], None]:
    return lambda folder: (folder / "trainer.json").write_text(json.dumps(content)) and None


def of_header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda folder: header(folder / "weights-00000.safetensors", change)


def a_folder(folder: Path) -> None:
    (folder / "trainer.json").unlink()
    (folder / "trainer.json").mkdir()


ODD: dict[str, Callable[[Path], None]] = {
    "no shape": of_header(first_tensor(shape=[])),
    "shape of text": of_header(first_tensor(shape=["x"])),
    "shape null": of_header(first_tensor(shape=None)),
    "huge shape": of_header(first_tensor(shape=[10**30])),
    "negative shape": of_header(first_tensor(shape=[-1])),
    "offsets": of_header(first_tensor(data_offsets=[])),
    "offsets of text": of_header(first_tensor(data_offsets=["a", "b"])),
    "an unknown type": of_header(first_tensor(dtype="Q4")),
    "an odd box": of_header(first_slice(box=[[0, 10**30]], global_shape=[10**30])),
    "a box of no length": of_header(first_slice(box=[[0, 0]], global_shape=[0])),
    "a box back to front": of_header(first_slice(box=[[9, 1]])),
    "a start of text": of_header(first_slice(start="x")),
    "nested": of_header(lambda _: b"[" * 5000 + b"]" * 5000),
    "a list": of_header(lambda _: []),
    "null": of_header(lambda _: None),
    "not UTF-8": of_header(lambda _: b"\xff\xfe"),
    "an empty file": lambda folder: (folder / "weights-00000.safetensors").write_bytes(b"") and None,
    "trainer null": trainer(None),
    "trainer empty": trainer({}),
    "trainer of text": trainer({"progress": {"step": "8"}}),
    "trainer of another step": trainer({"progress": {"step": 7}, "callbacks": {}}),
    "trainer with an unknown name": trainer({"progress": {"step": 8, "__class__": 3}, "callbacks": {}}),
    "trainer's callbacks": trainer({"progress": {"step": 8}, "callbacks": []}),
    "trainer nested": lambda folder: (folder / "trainer.json").write_text("[" * 100_000) and None,
    "a folder for a file": a_folder,
}
FACTS: dict[str, dict[str, Any]] = {
    "step of text": {"step": "x"},
    "another step": {"step": 4},
    "no samples": {"samples": None},
    "a rate of text": {"learning_rate": "fast"},
    "optimizer's steps": {"optimizer_steps": -1},
}


def odd_checkpoint(whole: Path, step: int, change: Callable[[Path], None], facts: dict[str, Any]) -> None:
    """A later checkpoint whose manifest fits its files: what is odd was written so."""
    folder = whole.with_name(checkpoint_name(step))
    shutil.copytree(whole, folder)
    manifest = read_manifest(folder / MANIFEST)
    change(folder)
    files = [record_file(folder / file.path, folder) for file in manifest.files if (folder / file.path).is_file()]
    write_manifest(folder / MANIFEST, build_manifest("checkpoint", files, {**manifest.facts, "step": step, **facts}))


def test_whatever_is_odd_in_newer_checkpoints_an_older_one_is_used(
    small_data: SmallData, tmp_path: Path, runs: Path
) -> None:
    run = train(small_data, tmp_path).run
    whole = run.checkpoints / checkpoint_name(8)
    cases: list[tuple[Callable[[Path], None], dict[str, Any]]] = [(change, {}) for change in ODD.values()]
    cases += [(lambda _: None, facts) for facts in FACTS.values()]
    for step, (change, facts) in enumerate(cases, start=9):
        odd_checkpoint(whole, step, change, facts)
    launch = train(small_data, tmp_path)
    told = messages(launch)
    for step, name in enumerate([*ODD, *FACTS], start=9):
        assert any(f"skipping damaged {checkpoint_name(step)}: " in text for text in told), (name, told)
    assert any("resuming from step-0000000008" in text for text in told)


def test_a_checkpoint_moved_away_with_a_link_left_behind_goes_by_the_rules(
    small_data: SmallData, tmp_path: Path, runs: Path
) -> None:
    short = overrides(training__steps=6, schedule__decay_end=6)
    run = train(small_data, tmp_path, *short).run
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for step in (3, 6):
        (run.checkpoints / checkpoint_name(step)).rename(scratch / str(step))
        (run.checkpoints / checkpoint_name(step)).symlink_to(scratch / str(step))
    (run.checkpoints / "step-0000000001.deleting").symlink_to(scratch / "3")  # as an earlier version left it
    (run.checkpoints / "step-0000000002.0001.saving").symlink_to(scratch / "nowhere")
    (run.checkpoints / checkpoint_name(9)).symlink_to(scratch / "lost")
    (run.checkpoints / checkpoint_name(10)).symlink_to("x" * 300)  # cannot even be looked at
    long = overrides(training__steps=12, schedule__decay_end=6, checkpoint__keep_last=1)
    launch = train(small_data, tmp_path, *long)
    assert names(run) == [checkpoint_name(12)]
    (run.checkpoints / checkpoint_name(10)).unlink()
    assert {path.name for path in run.checkpoints.iterdir()} == {checkpoint_name(12), "step-0000000009.replaced-1"}
    assert any("step-0000000010 (cannot be looked at: File name too long" in text for text in messages(launch))
    assert len(list((scratch / "3").iterdir())) == 6 and (scratch / "6" / MANIFEST).is_file()
    assert any("resuming from step-0000000006" in text for text in messages(launch))
    assert any(f"its target {scratch / '6'} stays" in path.read_text() for path in run.logs.iterdir())


def test_nothing_goes_where_checkpoints_is_a_link_and_the_run_goes_on(
    small_data: SmallData, tmp_path: Path, runs: Path
) -> None:
    run = train(small_data, tmp_path).run
    run.checkpoints.rename(tmp_path / "scratch")
    run.checkpoints.symlink_to(tmp_path / "scratch")
    (tmp_path / "scratch" / "step-0000000001.deleting").mkdir()
    settings = overrides(training__steps=12, schedule__decay_end=8, checkpoint__keep_last=1)
    launch = train(small_data, tmp_path, *settings)
    assert names(run)[0] == checkpoint_name(12) and len(names(run)) == 5
    assert (tmp_path / "scratch" / "step-0000000001.deleting").is_dir()
    assert any("nothing is deleted through a link" in text for text in messages(launch))


def train_and_delete_the_run(launch_directory: str) -> None:
    """Train; in step 4 somebody deletes what the run has saved, and its launches."""
    from megatron_patches.objectives.batches import TrainingBatches

    read = TrainingBatches.at

    def read_and_delete(self: TrainingBatches, consumed: int):  # type: ignore[no-untyped-def]
        if consumed == 3 * 8:
            for name in ("launches", "checkpoints"):
                shutil.rmtree(Path(launch_directory).parents[1] / name)
        return read(self, consumed)

    TrainingBatches.at = read_and_delete  # type: ignore[method-assign]
    train_launch(launch_directory)


def test_a_run_folder_that_is_deleted_is_said_and_not_made_anew(
    small_data: SmallData, tmp_path: Path, runs: Path
) -> None:
    with pytest.raises(RankFailed, match=r"was deleted or moved while the run was at work.* Put the folder back"):
        train(small_data, tmp_path, how=train_and_delete_the_run)
    assert list(runs.glob("*/checkpoints")) == []


def train_and_stop_in(launch_directory: str, in_step: int) -> None:
    """Train, and be asked to stop in a step."""
    from megatron_patches.objectives.batches import TrainingBatches

    read = TrainingBatches.at

    def read_and_signal(self: TrainingBatches, consumed: int):  # type: ignore[no-untyped-def]
        if consumed == (in_step - 1) * 8:
            os.kill(os.getpid(), signal.SIGUSR1)
        return read(self, consumed)

    TrainingBatches.at = read_and_signal  # type: ignore[method-assign]
    train_launch(launch_directory)


def test_three_stops_take_no_regular_checkpoints_place(small_data: SmallData, tmp_path: Path, runs: Path) -> None:
    settings = overrides(training__steps=20, checkpoint__every_steps=2, checkpoint__keep_last=3)
    config = small_data.run(tmp_path, [*settings, *overrides(checkpoint__asynchronous="false")])
    reasons = {}
    for in_step in (6, 8, 10):  # they stop after the step that follows: 7, 9, 11
        started = start_launch(config)
        run_on_ranks(train_and_stop_in, 1, str(started.directory), in_step)
        reasons |= {
            path.name: read_manifest(path / MANIFEST).facts["reason"]
            for path in list_checkpoints(started.run.checkpoints)
        }
    assert names(started.run) == [checkpoint_name(step) for step in (11, 10, 8, 6)]
    assert reasons[checkpoint_name(7)] == reasons[checkpoint_name(11)] == "stop"
    run_on_ranks(train_launch, 1, str(start_launch(config).directory))
    assert names(started.run) == [checkpoint_name(step) for step in (20, 18, 16)]


def test_a_rate_changed_behind_the_decay_is_refused_before_work(
    small_data: SmallData, tmp_path: Path, runs: Path
) -> None:
    decayed = overrides(training__steps=12, schedule__decay_end=6)
    train(small_data, tmp_path, *overrides(training__steps=8, schedule__decay_end=6))
    plan(tmp_path, *decayed)
    with pytest.raises(TrainyardError, match=r"optimizer\.learning_rate is 0\.01 in .* which would do nothing"):
        plan(tmp_path, *decayed, *overrides(optimizer__learning_rate=0.05))
    launch = train(small_data, tmp_path, *decayed, *overrides(logging__every_steps=2))
    (told,) = [text for text in messages(launch) if text.startswith("changed since step-0000000008: ")]
    assert "training.steps 8 -> 12" in told and "logging.every_steps 1 -> 2" in told
