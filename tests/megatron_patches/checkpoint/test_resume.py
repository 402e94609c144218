"""Promise 2: a stop does not change the result; promise 3: nothing half-written is taken for whole."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from data_tools.datasets.manifest import read_dataset_manifest
from megatron_patches.artefacts.branch import Beginning, record_beginning
from megatron_patches.artefacts.folders import list_checkpoints
from megatron_patches.artefacts.manifest import Status, read_manifest, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.save import put_in_place, refuse_where_taken_over
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.events.reading import effective, read_events
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved
from megatron_patches.run.run_directory import Launch, start_launch
from tests.ranks import RankFailed, Ranks, run_on_ranks
from tests.small_training import SmallData, overrides, train_launch

LAYOUTS = {
    "TP2 PP2": (4, overrides(parallel__tensor=2, parallel__pipeline=2, parallel__zero_stage=0)),
    "DP2 ZeRO-1": (2, overrides(parallel__zero_stage=1)),
    "DP2 ZeRO-3": (2, overrides(parallel__zero_stage=3)),
}
MORE_LAYOUTS = {
    "DP2 ZeRO-2": (2, overrides(parallel__zero_stage=2)),
    "TP2 DP2 ZeRO-3": (4, overrides(parallel__tensor=2, parallel__zero_stage=3)),
}
MOVES = [("DP2 ZeRO-1", "TP2 PP2"), ("DP2 ZeRO-3", "DP2 ZeRO-2"), ("DP2 ZeRO-2", "TP2 DP2 ZeRO-3")]
PRECISIONS = {
    "fp32, dropout": overrides(model__hidden_dropout=0.1, model__attention_dropout=0.1),
    "bf16": overrides(training__precision="bf16"),
}


def launch(config: RunConfig, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    monkeypatch.setenv("TRAINYARD_RUNS", str(runs))
    return start_launch(config)


def train_to_end(config: RunConfig, ranks: int, runs: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    started = launch(config, runs, monkeypatch)
    run_on_ranks(train_launch, ranks, str(started.directory))
    return started.run


def train_and_signal(launch_directory: str, in_step: int, number: int, on_rank: int) -> None:
    """Train, and send this process a signal while the given step reads its data."""
    from megatron_patches.objectives.batches import TrainingBatches

    read = TrainingBatches.at

    def read_and_signal(self: TrainingBatches, consumed: int):  # type: ignore[no-untyped-def]
        if consumed == (in_step - 1) * 8 and int(os.environ["RANK"]) == on_rank:
            os.kill(os.getpid(), number)
        return read(self, consumed)

    TrainingBatches.at = read_and_signal  # type: ignore[method-assign]
    train_launch(launch_directory)


def stored_bytes(folder: Path) -> dict[str, str]:
    """Hash of every tensor file of a checkpoint."""
    files = read_manifest(folder / "manifest.json").files
    return {file.path: file.sha256 for file in files if file.path.endswith(".safetensors")}


def losses(run: RunFolder) -> dict[int, float]:
    events = effective(read_events(run.events), "step")
    assert [event.facts["step"] for event in events] == list(range(1, len(events) + 1)), "each step once, in order"
    return {event.facts["step"]: event.facts["loss"] for event in events}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_stopped_and_killed_runs_end_like_an_uninterrupted_one(
    layout: str, precision: str, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks, arguments = LAYOUTS[layout]
    config = small_data.run(tmp_path, [*arguments, *PRECISIONS[precision]])
    whole = train_to_end(config, ranks, tmp_path / "whole", monkeypatch)

    stopped = launch(config, tmp_path / "stopped", monkeypatch)
    run_on_ranks(train_and_signal, ranks, str(stopped.directory), 4, signal.SIGUSR1, ranks - 1)
    assert stopped.stopped.exists()
    assert list_checkpoints(stopped.run.checkpoints)[0].name == "step-0000000005"
    train_to_end(config, ranks, tmp_path / "stopped", monkeypatch)

    # step 3's checkpoint is whole when step 4 begins, however far the thread that saves beside training would be behind
    waiting = small_data.run(tmp_path, [*arguments, *PRECISIONS[precision], "--checkpoint.asynchronous=false"])
    killed = launch(waiting, tmp_path / "killed", monkeypatch)
    with pytest.raises(RankFailed):
        run_on_ranks(train_and_signal, ranks, str(killed.directory), 5, signal.SIGKILL, ranks - 1)
    assert list_checkpoints(killed.run.checkpoints)[0].name == "step-0000000003"
    train_to_end(config, ranks, tmp_path / "killed", monkeypatch)

    for run in (stopped.run, killed.run):
        assert losses(run) == losses(whole)
        assert stored_bytes(run.checkpoints / "step-0000000008") == stored_bytes(whole.checkpoints / "step-0000000008")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("first", "then"), MOVES)
def test_another_layout_continues_with_the_same_samples(
    first: str, then: str, precision: str, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masters and moments arrive whole: under bf16 a master rounded on the way would show in the losses."""
    precise, layouts = overrides(training__precision=precision), LAYOUTS | MORE_LAYOUTS
    ranks, arguments = layouts[first]
    small = small_data.run(tmp_path, [*precise, *arguments])
    whole = train_to_end(small, ranks, tmp_path / "whole", monkeypatch)
    started = launch(small, tmp_path / "moved", monkeypatch)
    run_on_ranks(train_and_signal, ranks, str(started.directory), 4, signal.SIGTERM, 0)
    ranks, arguments = layouts[then]
    moved = train_to_end(small_data.run(tmp_path, [*precise, *arguments]), ranks, tmp_path / "moved", monkeypatch)

    expected, found = losses(whole), losses(moved)
    tolerance = 1e-5 if precision == "fp32" else 2e-3
    assert max(abs(found[step] - expected[step]) / expected[step] for step in expected) < tolerance
    last = Path("checkpoints/step-0000000008")
    assert stored_elements(moved.path / last) == stored_elements(whole.path / last)


def stored_elements(folder: Path) -> dict[str, int]:
    """How many elements of each (parameter, kind) a checkpoint holds, over all files."""
    counts: dict[str, int] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                counts[key] = counts.get(key, 0) + file.get_tensor(key).numel()
    return counts


@pytest.fixture
def finished(small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunConfig, RunFolder]:
    """A run on one rank with checkpoints of steps 3, 6 and 8."""
    config = small_data.run(tmp_path)
    return config, train_to_end(config, 1, tmp_path / "runs", monkeypatch)


def damage_byte(folder: Path) -> None:
    path = folder / "optimizer-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    os.truncate(folder / "weights-00000.safetensors", 1000)


def remove_file(folder: Path) -> None:
    (folder / "trainer.json").unlink()


def edit_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"step": 8', '"step": 80'))


@pytest.mark.parametrize("damage", [damage_byte, truncate, remove_file, edit_manifest])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(
    damage,
    finished: tuple[RunConfig, RunFolder],
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    config, run = finished
    before, good = losses(run), stored_bytes(run.checkpoints / "step-0000000008")
    damage(run.checkpoints / "step-0000000008")
    train_to_end(config, 1, run.path.parent, monkeypatch)
    messages = [event.facts["text"] for event in read_events(run.events) if event.kind == "message"]
    assert any("skipping damaged step-0000000008" in text for text in messages)
    assert any("resuming from step-0000000006" in text for text in messages)
    assert losses(run) == before
    assert stored_bytes(run.checkpoints / "step-0000000008") == good
    assert (run.checkpoints / "step-0000000008.replaced-1").is_dir()


def mark_all(run: RunFolder, cause: str) -> None:
    for folder in list_checkpoints(run.checkpoints):
        manifest = read_manifest(folder / "manifest.json")
        status = Status(state="invalid", reason="came from it", date="2026-01-01", cause=cause)
        write_manifest(folder / "manifest.json", manifest.model_copy(update={"status": status}))


def test_checkpoints_that_came_from_invalid_data(
    finished: tuple[RunConfig, RunFolder],
    small_data: SmallData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, run = finished
    mark_all(run, cause="0" * 64)  # of something that is not the data: allowing that is not enough
    allowing = small_data.run(tmp_path, overrides(data__allow_invalid="true"))
    with pytest.raises(RankFailed, match="all 3 checkpoints"):
        train_to_end(allowing, 1, run.path.parent, monkeypatch)
    mark_all(run, cause=read_dataset_manifest(small_data.folder / "text")[0].id)
    with pytest.raises(RankFailed, match="all 3 checkpoints"):
        train_to_end(config, 1, run.path.parent, monkeypatch)
    train_to_end(allowing, 1, run.path.parent, monkeypatch)
    messages = [event.facts["text"] for event in read_events(run.events) if event.kind == "message"]
    assert any("resuming from step-0000000008" in text for text in messages)


def test_nothing_is_started_over_when_all_checkpoints_are_damaged(
    finished: tuple[RunConfig, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = finished
    for folder in list_checkpoints(run.checkpoints):
        damage_byte(folder)
    with pytest.raises(RankFailed, match=r"all 3 checkpoints in .* are damaged"):
        train_to_end(config, 1, run.path.parent, monkeypatch)


def test_a_killed_save_is_removed_and_never_taken_for_a_checkpoint(
    finished: tuple[RunConfig, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = finished
    partial = run.checkpoints / "step-0000000009.0001.saving"
    pull = run.checkpoints / "step-0000000009.pulling"
    for leftover in (partial, pull):
        leftover.mkdir()
        (leftover / "weights-00000.safetensors").write_bytes(b"half")
    assert list_checkpoints(run.checkpoints)[0].name == "step-0000000008"
    train_to_end(config, 1, run.path.parent, monkeypatch)
    assert not partial.exists()
    assert pull.exists(), "the next pull goes on with it"


def train_and_start_another(launch_directory: str, begins: bool) -> None:
    """Train; in step 2 another launch of the run is started elsewhere."""
    from megatron_patches.objectives.batches import TrainingBatches

    read = TrainingBatches.at

    def read_and_start(self: TrainingBatches, consumed: int):  # type: ignore[no-untyped-def]
        if consumed == 8 and os.environ["RANK"] == "0":
            later = start_launch(load_resolved(Path(launch_directory) / "config.yaml"))
            if begins:
                record_beginning(later.directory, Beginning(2, 0, None))
        return read(self, consumed)

    TrainingBatches.at = read_and_start  # type: ignore[method-assign]
    train_launch(launch_directory)


@pytest.mark.parametrize("begins", [False, True])
def test_a_launch_that_was_taken_over_saves_itself_unless_the_other_trains(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    started = launch(small_data.run(tmp_path), tmp_path / "runs", monkeypatch)
    with pytest.raises(RankFailed, match=r"launch 0002 of .* has taken the run over from 0001, this one"):
        run_on_ranks(train_and_start_another, 2, str(started.directory), begins)
    saved = sorted(path.name for path in started.run.checkpoints.glob("*"))
    assert len(saved) == (0 if begins else 1)


def test_a_save_is_left_out_where_the_other_begins_while_it_is_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    for name in ("0001", "0002"):
        (run.launches / name).mkdir(parents=True)
    refuse_where_taken_over(run.checkpoints / "step-0000000010", "0001")
    record_beginning(run.launches / "0002", Beginning(2, 0, None))
    refuse_where_taken_over(run.checkpoints / "step-0000000010", "0002")
    with pytest.raises(Refused, match="launch 0002"):
        refuse_where_taken_over(run.checkpoints / "step-0000000010", "0001")


def test_a_save_that_stood_still_replaces_nothing_of_a_later_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    final, partial = run.checkpoints / "step-0000000010", run.checkpoints / "step-0000000010.0001.saving"
    for folder in (run.launches / "0001", run.launches / "0002", final, partial):
        folder.mkdir(parents=True)
        (folder / "of").write_text(folder.name)
    rename = Path.rename

    def stand_still(self: Path, target: Path) -> Path:
        """Between the look and the rename the later launch begins, trains and saves this step."""
        if self == final:
            record_beginning(run.launches / "0002", Beginning(2, 0, None))
            (final / "of").write_text("the later launch")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stand_still)
    with pytest.raises(Refused, match="launch 0002"):
        put_in_place(partial, final, "0001")
    assert (final / "of").read_text() == "the later launch"
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [final.name, partial.name]


def train_with_full_disk(launch_directory: str, on_rank: int) -> None:
    """Train; this rank's first checkpoint write fails as a full disk does."""
    from megatron_patches.atomic_files import HashingWriter

    def fail(self: HashingWriter, content: object) -> None:
        raise OSError(28, "No space left on device")

    if int(os.environ["RANK"]) == on_rank:
        HashingWriter.write = fail  # type: ignore[method-assign, assignment]
    train_launch(launch_directory)


def test_a_full_disk_on_one_rank_stops_all_and_leaves_the_last_checkpoint(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = launch(small_data.run(tmp_path), tmp_path / "runs", monkeypatch)
    ranks = Ranks(train_with_full_disk, 2, str(started.directory), 1)
    with pytest.raises(RankFailed, match=r"checkpoint of step 3 could not be written .*rank 1.*No space left"):
        ranks.results()
    assert list_checkpoints(started.run.checkpoints) == []


def test_records_are_readable_after_a_kill_at_any_instant(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = launch(small_data.run(tmp_path, overrides(training__steps=300)), tmp_path / "runs", monkeypatch)
    ranks = Ranks(train_launch, 1, str(started.directory))
    deadline = time.monotonic() + 60
    while not effective(read_events(started.run.events), "checkpoint") and time.monotonic() < deadline:
        time.sleep(0.05)
    ranks.kill()
    events = read_events(started.run.events)
    assert effective(events, "step") and effective(events, "checkpoint")
    with (started.run.events / "0001-trainer.jsonl").open("a") as file:
        file.write('{"kind": "step", "ti')
    assert len(read_events(started.run.events)) == len(events)
    with (started.run.events / "0001-trainer.jsonl").open("a") as file:
        file.write("me\n")
    with pytest.raises(TrainyardError, match=r"jsonl:\d+ is not JSON"):
        read_events(started.run.events)


def test_the_manifest_states_what_the_checkpoint_is(finished: tuple[RunConfig, RunFolder]) -> None:
    config, run = finished
    manifest = read_manifest(run.checkpoints / "step-0000000008" / "manifest.json")
    dataset = read_manifest(Path(config.data.path + ".manifest.json"))
    assert manifest.kind == "checkpoint" and dataset.id in manifest.parents
    facts = manifest.facts
    assert (facts["run"], facts["step"], facts["samples"], facts["tokens"]) == (config.name, 8, 64, 64 * 16)
    assert facts["optimizer_steps"] == 8
    trainer = json.loads((run.checkpoints / "step-0000000008" / "trainer.json").read_text())
    assert trainer["progress"] == {"step": 8, "samples": 64, "tokens": 1024}
