"""Taking a run back: what is done by one rename, what is told, and what is refused before anything is written."""

import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_tools.data_config import SourceChangeConfig
from data_tools.sources_config import SourceConfig
from megatron_patches.artefacts.annotations import Standing
from megatron_patches.artefacts.branch import read_beginnings
from megatron_patches.artefacts.manifest import Status, read_manifest, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.events.reading import effective, read_events, rollbacks
from megatron_patches.events.tensorboard_files import ScalarFile
from megatron_patches.events.writing import EventWriter
from megatron_patches.launch.rollback_record import with_rollback
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import ReadRun, load_resolved, load_run, to_yaml
from megatron_patches.run.run_directory import start_launch
from tests.command_line import Call, verb
from tests.small_artefacts import make_artefact
from tests.small_run import write_run
from tools.commands.runs import command_line as runs
from tools.commands.runs import rollback as module
from tools.commands.runs.rollback import parse_range, perform, plan_rollback
from tools.loss_curve import read_curve, text_plot
from tools.run_views.state import derive_state

NAME = "tr900a-1K-back"
INVALID = Status(state="invalid", reason="wrong data", date="2026-01-01", cause="0" * 64)
LOSSES = {2: 5.0, 4: 4.0, 6: 4.5}


@dataclass(frozen=True)
class Trained:
    """A run of 10 steps of 8 samples, saved every 2 of the 9 that it has had."""

    run: RunFolder
    config: RunConfig

    def save(self, step: int, launch: str = "0001", **data: object) -> Path:
        """A checkpoint; `data` are settings that it was saved with."""
        config = self.config.model_copy(update={"data": self.config.data.model_copy(update=data)})
        facts = {
            "run": NAME, "launch": launch, "step": step, "samples": 8 * step, "tokens": 64 * step,
            "learning_rate": 1e-4, "next_learning_rate": 2e-4,
        }  # fmt: skip
        if step in LOSSES:
            facts["validation_loss"] = LOSSES[step]
        folder = self.run.checkpoints / f"step-{step:010d}"
        files = {"weights-00000.safetensors": b"w" * 10, "config.yaml": to_yaml(config).encode(), "trainer.json": b"{}"}
        make_artefact(folder, "checkpoint", files, facts)  # type: ignore[arg-type]
        return folder

    def files(self) -> dict[str, bytes]:
        """All there is, by path."""
        every = sorted(self.run.path.rglob("*"))
        return {str(path.relative_to(self.run.path)): path.read_bytes() for path in every if path.is_file()}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    config = load_run(write_run(tmp_path / "tr900-tests" / f"{NAME}.yaml"))
    launch = start_launch(config)
    made = Trained(launch.run, config)
    for step in (2, 4, 6, 8):
        made.save(step)
    writer = EventWriter(launch.run.events, launch.id, "trainer")
    writer.write("start", run=NAME, step=0)
    board = ScalarFile(launch.run.tensorboard, 1)
    for step in range(1, 10):
        writer.write("step", step=step, loss=6 - step / 2, seconds=1.0, samples=8 * step, tokens=64 * step)
        board.add({"training/loss": 6 - step / 2}, step)
    writer.write("end", step=9, outcome="stopped", reason="USR1")
    writer.close()
    board.close()
    return made


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.setenv("COLUMNS", "200")
    return verb(runs, monkeypatch, capsys)


def test_going_back(trained: Trained, call: Call) -> None:
    before = trained.files()
    done = call("rollback", NAME, "--to", 4, "--skip", "40:48", "--skip-steps", "8:9", "--because", "a spike")
    assert (done.returncode, done.stderr) == (0, "TensorBoard shows the steps that are left\n")
    assert done.stdout.splitlines() == [
        f"{NAME} is rolled back, as launch 0002: start it as before, and it goes on from there",
        "goes back to     step-0000000004, after 32 samples, validation loss 4.0000",
        "leaves behind    2 checkpoints (step 8, 6): kept, and marked abandoned",
        "leaves out       16 samples: 40:48, 56:64",
        "goes on with     step 5 at learning rate 0.0002, 6 steps to go",
    ]
    after = trained.files()
    gone = {path for path in before if path not in after}
    assert all(path.startswith("tensorboard/") for path in gone), "nothing else is deleted"
    assert {path.split("tfevents")[0] for path in after.keys() - before.keys()} == {
        "launches/0002/began.json", "launches/0002/config.yaml", "launches/0002/rollback.json",
        "launches/0002/owner.json", "launches/0002/ended.json",
        "events/0002-rollback.jsonl", "tensorboard/events.out.", "checkpoints/step-0000000004/verified.json",
    }  # fmt: skip
    [beginning] = read_beginnings(trained.run)
    assert (beginning.launch, beginning.step, beginning.rollback) == (2, 4, True)
    record = json.loads(after["launches/0002/rollback.json"])
    assert (record["from_step"], record["to_step"], record["because"]) == (8, 4, "a spike")
    assert record["skip_samples"] == [[40, 48], [56, 64]]
    resolved = load_resolved(trained.run.launches / "0002" / "config.yaml")
    assert resolved.data.skip_samples == [[40, 48], [56, 64]]
    assert with_rollback(ReadRun(trained.config)).config.data.skip_samples == [[40, 48], [56, 64]]


def test_views_know_at_once(trained: Trained) -> None:
    perform(plan_rollback(trained.run, "4", [], []), "a spike")
    events = read_events(trained.run.events)
    assert [event.facts["step"] for event in effective(events, "step")] == [1, 2, 3, 4]
    assert [event.facts["step"] for event in rollbacks(events)] == [4]
    curve = read_curve(NAME, trained.run.events)
    assert (curve.rollbacks, curve.stops, len(curve.training)) == ([4], [], 4)
    assert "< rolled back to here" in text_plot(curve, entropy=5.0)
    state = derive_state(trained.run.path, Standing(), {})
    assert (str(state), state.step) == ("stopped (rolled back to step 4 of 10)", 4)


def test_a_run_that_goes_on_owns_the_steps_after_the_rollback(trained: Trained) -> None:
    perform(plan_rollback(trained.run, "4", [], []), "a spike")
    writer = EventWriter(trained.run.events, "0003", "trainer")
    writer.write("start", step=4)
    for step in (5, 6):
        writer.write("step", step=step, loss=9.0)
    writer.close()
    curve = read_curve(NAME, trained.run.events)
    assert curve.training == [(1, 5.5), (2, 5.0), (3, 4.5), (4, 4.0), (5, 9.0), (6, 9.0)]
    assert curve.rollbacks == [4]


def test_a_dry_run_writes_nothing(trained: Trained, call: Call) -> None:
    before = trained.files()
    done = call("rollback", NAME, "--to", "best", "--skip", "32:40", "--dry-run", "--json")
    told = json.loads(done.stdout)
    assert (told["to_step"], told["abandoned"], told["skipped"], told["launch"]) == (4, [8, 6], 8, None)
    assert trained.files() == before
    assert call("rollback", NAME, "--to", 4, "--dry-run").stdout.startswith(f"{NAME} would be rolled back\n")


def test_the_same_command_again_does_nothing_twice(trained: Trained, call: Call) -> None:
    words = ("rollback", NAME, "--to", 4, "--skip-steps", "7:9", "--because", "a spike")
    call(*words)
    before = trained.files()
    again = call(*words)
    assert again.stdout.startswith(f"{NAME} was rolled back by launch 0002 already\n")
    known = lambda files: {path: content for path, content in files.items() if not path.startswith("tensorboard")}  # noqa: E731
    assert known(trained.files()) == known(before)


@pytest.mark.parametrize("killed", ["_write_event", "rebuild_tensorboard"])
def test_after_a_kill_the_same_command_does_what_is_missing(
    trained: Trained, killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    rollback = plan_rollback(trained.run, "4", ["40:48"], [])
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, killed, kill)
        perform(rollback, "a spike")
        module.rebuild_pictures(rollback)
    assert with_rollback(ReadRun(trained.config)).config.data.skip_samples == [[40, 48]], "the rename makes it true"
    again = plan_rollback(trained.run, "4", ["40:48"], [])
    assert perform(again, "").name == "0002"
    assert module.rebuild_pictures(again) == "TensorBoard shows the steps that are left"
    assert len(rollbacks(read_events(trained.run.events))) == 1
    assert sorted(path.name for path in trained.run.path.iterdir() if "partial" in path.name) == []


def test_an_earlier_rollback_counts_where_the_checkpoint_came_after_it(trained: Trained) -> None:
    """What is left out follows the branch: behind the rollback it stays, before it it is taken back, and is told."""
    perform(plan_rollback(trained.run, "4", ["32:40"], []), "a spike")
    trained.save(6, "0003", skip_samples=[[32, 40]])
    later = plan_rollback(trained.run, "6", ["70:72"], [])
    assert later.skipped.ranges == ((32, 40), (70, 72)) and not later.taken_back
    earlier = plan_rollback(trained.run, "2", [], [])
    assert earlier.skipped.ranges == () and earlier.taken_back == ((32, 40),)
    assert ("reads again", "32:40, which an earlier rollback left out; to leave them out still, add --skip 32:40") in (
        earlier.describe()
    )
    perform(earlier, "further")
    assert with_rollback(ReadRun(trained.config)).config.data.skip_samples == []


def test_steps_are_those_that_were_trained(trained: Trained) -> None:
    """A rollback to leave out step 5 is undone, and step 5 still means what it read."""
    perform(plan_rollback(trained.run, "4", [], ["5:6"]), "a spike")
    other = plan_rollback(trained.run, "4", [], ["5:7"])
    assert other.skipped.ranges == ((32, 48),)
    undone = plan_rollback(trained.run, "4", [], [])
    assert undone.taken_back == ((32, 40),) and undone.skipped.ranges == ()


def test_what_the_yaml_leaves_out_stays(trained: Trained) -> None:
    perform(plan_rollback(trained.run, "4", ["40:48"], []), "a spike")
    data = trained.config.data.model_copy(update={"skip_samples": [[48, 50], [60, 64]]})
    config = trained.config.model_copy(update={"data": data})
    assert with_rollback(ReadRun(config)).config.data.skip_samples == [[40, 50], [60, 64]]


REFUSED = {
    "a step never saved": (["--to", "5"], "no full checkpoint of step 5; nearest: 4 and 6"),
    "a step beyond": (["--to", "100"], "nearest: 8"),
    "no step": (["--to", "last"], "of a checkpoint, best or best:TASK.METRIC, not last; saved: 2 to 8"),
    "no range": (["--to", "4", "--skip", "40-48"], "--skip takes FROM:TO, not 40-48"),
    "an empty range": (["--to", "4", "--skip", "48:48"], "--skip takes FROM:TO, not 48:48"),
    "a negative range": (["--to", "4", "--skip=-8:48"], "--skip takes FROM:TO, not -8:48"),
    "a huge number": (["--to", "4", "--skip", f"0:{10**30}"], "--skip takes FROM:TO"),
    "no steps": (["--to", "4", "--skip-steps", "5"], "--skip-steps takes FROM:TO, not 5: .* counted from 1"),
    "step 0": (["--to", "4", "--skip-steps", "0:5"], "the run has steps 1 to 10"),
    "what was read": (
        ["--to", "4", "--skip", "24:48"],
        r"trained on sample 24, .*from 32 on, or go back .* before step 3",
    ),
    "what was read, with an older one": (["--to", "4", "--skip", "24:48"], r"\(the newest such is step 2\)"),
    "what was read, with no older one": (
        ["--to", "4", "--skip", "8:9"],
        r"at or before step 1 \(the run has no such\)",
    ),
    "beyond the end": (["--to", "4", "--skip", "80:90"], "the run ends at sample 80 of its order"),
    "nothing to do": (["--to", "8"], "the next launch of .* goes on from step-0000000008 .* nothing to roll back"),
    "no reason": (["--to", "4", "--because", " "], "--because takes one line"),
    "a secret": (["--to", "4", "--because", "see https://me:secret@host/x"], "credentials"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(trained: Trained, call: Call, case: str) -> None:
    words, message = REFUSED[case]
    before = trained.files()
    done = call("rollback", NAME, "--because", "a spike", *words)
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert trained.files() == before


def test_a_damaged_checkpoint_is_found_by_its_bytes(trained: Trained) -> None:
    path = trained.run.checkpoints / "step-0000000004" / "weights-00000.safetensors"
    path.write_bytes(b"W" * 10)
    before = trained.files()
    with pytest.raises(TrainyardError, match=r"weights-00000.* Name another \(nearest: 2 and 6\)"):
        perform(plan_rollback(trained.run, "4", [], []), "a spike")
    assert set(trained.files()) - set(before) == {"checkpoints/step-0000000004/damaged.json"}
    with pytest.raises(TrainyardError, match="was found damaged when it was read last"):
        plan_rollback(trained.run, "4", [], [])
    assert plan_rollback(trained.run, "best", [], []).target.step == 6, "the damaged one is none of the best"


def test_an_invalid_or_a_shorter_checkpoint(trained: Trained) -> None:
    folder = trained.run.checkpoints / "step-0000000004"
    manifest = read_manifest(folder / "manifest.json")
    write_manifest(folder / "manifest.json", manifest.model_copy(update={"status": INVALID}))
    with pytest.raises(TrainyardError, match=r"marks this checkpoint invalid .*: wrong data.* \(nearest: 2 and 6\)"):
        plan_rollback(trained.run, "4", [], [])
    (trained.run.checkpoints / "step-0000000006" / "weights-00000.safetensors").write_bytes(b"w")
    with pytest.raises(TrainyardError, match="nearest: 2 and 8"):
        plan_rollback(trained.run, "6", [], [])


def test_what_was_left_behind_is_not_gone_forward_to(trained: Trained) -> None:
    perform(plan_rollback(trained.run, "4", [], []), "a spike")
    with pytest.raises(Refused, match=rf"left behind by launch 0002, .* child run from it \(init_from: {NAME}@8\)"):
        plan_rollback(trained.run, "8", [], [])


def test_nothing_was_validated(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "LOSSES", {})
    for step in (2, 4, 6):
        shutil.rmtree(trained.run.checkpoints / f"step-{step:010d}")
        trained.save(step)
    with pytest.raises(TrainyardError, match="was validated, so none is the best: name a step; saved: 2 to 8"):
        plan_rollback(trained.run, "best", [], [])


def test_a_run_at_work_is_left_alone(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(run: RunFolder) -> None:
        raise Refused(f"launch 0001 of {run.name} is at work")

    monkeypatch.setattr(module, "refuse_living_owner", refuse)
    before = trained.files()
    with pytest.raises(Refused, match="is at work"):
        perform(plan_rollback(trained.run, "4", [], []), "a spike")
    assert trained.files() == before


def test_a_damaged_record_is_replaced_by_another_rollback(trained: Trained) -> None:
    folder = perform(plan_rollback(trained.run, "4", ["40:48"], []), "a spike")
    (folder / "rollback.json").write_text('{"skip_samples": [[48, 40]]}')
    [problem] = with_rollback(ReadRun(trained.config)).texts()
    assert re.search(r"0002/rollback.json is no record of a rollback .* or roll back again", problem)
    perform(plan_rollback(trained.run, "2", [], []), "again")
    assert with_rollback(ReadRun(trained.config)).config.data.skip_samples == []


def test_pictures_that_events_cannot_replace_stay(trained: Trained) -> None:
    (trained.run.events / "0001-trainer.jsonl").unlink()
    rollback = plan_rollback(trained.run, "4", [], [])
    perform(rollback, "a spike")
    before = {path.name for path in trained.run.tensorboard.iterdir()}
    assert module.rebuild_pictures(rollback) == "TensorBoard's files stay as they are"
    assert before < {path.name for path in trained.run.tensorboard.iterdir()}, "a file that hides later steps is added"


def test_pictures_are_left_whole_where_the_disk_is_full(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    rollback = plan_rollback(trained.run, "4", [], [])
    perform(rollback, "a spike")
    before = trained.files()
    monkeypatch.setattr(ScalarFile, "sync", full)
    assert "No space left on device); give the same command again" in module.rebuild_pictures(rollback)
    assert trained.files() == before


def test_what_a_change_of_sources_would_move_is_not_left_out(trained: Trained) -> None:
    """Sources change after step 5, at sample 40 of the order that was read."""
    later = SourceChangeConfig(from_step=5, sources=[SourceConfig(name="later", path="data/later")])
    data = trained.config.data.model_copy(update={"changes": [later]})
    start_launch(trained.config.model_copy(update={"data": data}))
    for skip, steps in ((["32:44"], []), (["32:36", "40:44"], []), ([], ["5:7"])):
        with pytest.raises(Refused, match=r"after step 5 .* at sample 40 of .* Leave out samples up to 40 alone"):
            plan_rollback(trained.run, "4", skip, steps)
    for skip in (["32:40"], ["40:44"], ["48:56"]):
        assert plan_rollback(trained.run, "4", skip, []).skipped.count > 0


def test_ranges() -> None:
    assert parse_range("0:8") == (0, 8)
    assert parse_range("1:2", "steps") == (1, 2)
