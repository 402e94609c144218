"""Evaluations in TensorBoard and Weights & Biases."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megatron_patches.artefacts.branch import Beginning, record_beginning
from megatron_patches.artefacts.descent import descent_of_launch
from megatron_patches.artefacts.manifest import Manifest, Status, build_manifest, read_manifest, write_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.events import tensorboard_files
from megatron_patches.events.tensorboard_files import ScalarFile, rebuild_tensorboard
from megatron_patches.events.writing import EventWriter
from tests.small_artefacts import RUN, make_checkpoint
from tests.small_evaluations import evaluate, make_result
from tests.wandb_record import history
from tools.commands.sync_to_hub.items import Choice, loose_files
from tools.evaluation_views.charts import publish


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of one launch, whose config says nothing."""
    folder = RunFolder(tmp_path / RUN)
    folder.path.mkdir()
    write_manifest(folder.manifest, build_manifest("run", [], {"run": RUN, "wandb_id": "abcd1234"}))
    begin(folder, 1, 0)
    return folder


def begin(run: RunFolder, launch: int, step: int, rollback: bool = False) -> None:
    (run.launches / f"{launch:04d}").mkdir(parents=True)
    record_beginning(run.launches / f"{launch:04d}", Beginning(launch, step, None, rollback))


def evaluated(run: RunFolder, step: int, **metrics: float) -> Manifest:
    facts = descent_of_launch(read_manifest(run.manifest).id, 1, 0, None)
    manifest = make_checkpoint(run.path.parent, step, **facts)
    evaluate(run.path.parent, make_result(manifest, metrics=metrics))
    return manifest


def board(run: RunFolder) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of the folder."""
    shown = EventAccumulator(str(run.tensorboard / "evals")).Reload()
    return {name: {each.step: round(each.value, 4) for each in shown.Scalars(name)} for name in shown.Tags()["scalars"]}


def files(run: RunFolder) -> list[str]:
    return sorted(path.name for path in (run.tensorboard / "evals").iterdir() if path.stat().st_size)


def test_results_stand_at_their_steps_whatever_order_they_come_in(run: RunFolder) -> None:
    for step, accuracy in ((30, 0.5), (10, 0.25)):
        evaluated(run, step, acc=accuracy, acc_norm=accuracy + 0.1)
        assert publish(run) == []
    assert board(run) == {"evals/hellaswag.acc": {10: 0.25, 30: 0.5}, "evals/hellaswag.acc_norm": {10: 0.35, 30: 0.6}}
    before = files(run)
    assert len(before) == 1
    assert publish(run) == []
    assert files(run) == before, "the same results make no second file"
    manifest = evaluated(run, 20, acc=0.3, acc_norm=0.4)
    evaluate(run.path.parent, make_result(manifest, "mmlu", parts={"anatomy": 0.9}, acc=0.1))
    assert publish(run) == []
    assert board(run)["evals/hellaswag.acc"] == {10: 0.25, 20: 0.3, 30: 0.5}
    assert board(run)["evals/mmlu.acc"] == {20: 0.1}
    assert len(files(run)) == 1
    assert [path.name for path in run.path.glob("*.partial")] == []


def test_an_open_tensorboard_shows_what_comes(run: RunFolder) -> None:
    """Also where several files came between two of its looks; few of the former ones stay, and those are empty."""
    shown = EventAccumulator(str(run.tensorboard / "evals"))
    for step in range(1, 31):
        evaluated(run, step, acc=step / 100)
        assert publish(run) == []
        if step % 10 == 1:
            found = shown.Reload().Scalars("evals/hellaswag.acc")
            assert [each.step for each in found] == list(range(1, step + 1))
    assert [each.step for each in shown.Reload().Scalars("evals/hellaswag.acc")] == list(range(1, 31))
    assert board(run)["evals/hellaswag.acc"] == {step: step / 100 for step in range(1, 31)}
    assert len(files(run)) == 1
    assert len(list((run.tensorboard / "evals").iterdir())) == 21


def test_a_link_in_place_of_a_file_is_not_followed(run: RunFolder, tmp_path: Path) -> None:
    evaluated(run, 10)
    publish(run)
    folder = run.tensorboard / "evals"
    (tmp_path / "mine").write_text("mine")
    (folder / "events.out.tfevents.0000000001.a").symlink_to(tmp_path / "mine")
    (folder / "events.out.tfevents.0000000002.b").symlink_to(tmp_path / "nowhere")
    assert publish(run) == []
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert len(files(run)) == 1


def test_a_run_without_results_has_no_chart(run: RunFolder) -> None:
    assert publish(run) == []
    assert not run.tensorboard.exists()


def test_invalid_results_and_those_of_steps_that_were_rolled_back_go(run: RunFolder) -> None:
    for step in (10, 20, 30):
        evaluated(run, step, acc=step / 100)
    publish(run)
    path = run.path / "evals" / "step-0000000010" / "manifest.json"
    status = Status(state="invalid", reason="a spike", date="2026-11-02T00:00:00+00:00")
    write_manifest(path, read_manifest(path).model_copy(update={"status": status}))
    publish(run)
    assert board(run) == {"evals/hellaswag.acc": {20: 0.2, 30: 0.3}}
    begin(run, 2, 20, rollback=True)
    publish(run)
    assert board(run) == {"evals/hellaswag.acc": {20: 0.2}}


def test_a_newer_file_hides_an_older_copy_beside_it(run: RunFolder) -> None:
    """As where both were pulled from a location, which keeps what was sent."""
    evaluated(run, 30, acc=0.5)
    publish(run)
    (older,) = (run.tensorboard / "evals").iterdir()
    content = older.read_bytes()
    evaluate(run.path.parent, make_result(evaluated(run, 10), acc=0.1))
    publish(run)
    older.write_bytes(content)
    assert board(run) == {"evals/hellaswag.acc": {10: 0.1, 30: 0.5}}


def test_training_and_a_rollback_leave_the_folder_alone(run: RunFolder) -> None:
    evaluated(run, 2, acc=0.5)
    publish(run)
    before = files(run)
    ScalarFile(run.tensorboard, 1).close()
    events = EventWriter(run.events, "0001", "trainer")
    events.write("start", step=0)
    for step in (1, 2, 3):
        events.write("step", step=step, loss=1.0, tokens=1)
    events.close()
    ScalarFile(run.tensorboard, 1).close()
    assert rebuild_tensorboard(run, 2)
    assert files(run) == before
    assert board(run) == {"evals/hellaswag.acc": {2: 0.5}}


def test_the_folder_travels_with_tensorboard(run: RunFolder) -> None:
    evaluated(run, 10)
    publish(run)
    (name,) = files(run)
    assert loose_files(run.path, Choice(("tensorboard",))) == {"tensorboard": [run.tensorboard / "evals" / name]}


def test_what_cannot_be_written_is_told(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated(run, 10)
    run.tensorboard.write_text("no folder")
    assert ["TensorBoard does not show the evaluations" in each for each in publish(run)] == [True]
    run.tensorboard.unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard_files.ScalarFile, "add", full)
    assert "No space left" in publish(run)[0]
    assert not (run.tensorboard / "evals").exists()


def test_what_cannot_be_read_is_told_and_hides_no_other(run: RunFolder) -> None:
    evaluated(run, 10)
    evaluated(run, 20)
    (run.path / "evals" / "step-0000000010" / "hellaswag.json").write_text("{")
    problems = publish(run)
    assert len(problems) == 1
    assert "hellaswag.json" in problems[0]
    assert board(run) == {"evals/hellaswag.acc": {20: 0.25}}


def log_to_wandb(run: RunFolder, mode: str = "offline") -> None:
    run.config.write_text(f"family: tr900\nlogging:\n  wandb: {{project: tests, mode: {mode}}}\n")


@pytest.mark.slow
def test_an_offline_record_is_written_again_whole(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log_to_wandb(run)
    of_training = run.path / "wandb" / "offline-run-20260101_000000-abcd1234"
    of_training.mkdir(parents=True)
    for step, accuracy in ((30, 0.5), (10, 0.25)):
        evaluated(run, step, acc=accuracy)
        assert publish(run) == []
    (folder,) = (run.path / "wandb").glob("offline-run-*-abcd1234-evals")
    shown = history(folder / "run-abcd1234-evals.wandb")
    assert {step: each["evals/hellaswag.acc"] for step, each in shown.items()} == {10: 0.25, 30: 0.5}
    assert publish(run) == []
    assert list((run.path / "wandb").glob("offline-run-*-abcd1234-evals")) == [folder], "the same results, no second"
    assert of_training.is_dir()
    # what training deletes of its own older records
    assert list((run.path / "wandb").glob("offline-run-*-abcd1234")) == [of_training]


class Service:
    """wandb as far as it is used online."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.asked: dict[str, Any] = {}
        self.fails = False
        self.Settings = SimpleNamespace

    def setup(self, settings: object) -> None:
        pass

    def teardown(self) -> None:
        pass

    def init(self, **asked: Any) -> "Service":
        self.asked = asked
        return self

    def define_metric(self, name: str, **how: object) -> None:
        pass

    def log(self, numbers: dict[str, float]) -> None:
        if self.fails:
            raise RuntimeError("it is gone")
        self.logged.append(numbers)

    def finish(self) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    found = Service()
    monkeypatch.setitem(__import__("sys").modules, "wandb", found)
    yield found


def test_online_only_what_is_new_is_sent(run: RunFolder, service: Service) -> None:
    log_to_wandb(run, "online")
    evaluated(run, 30, acc=0.5)
    service.fails = True
    assert "RuntimeError: it is gone" in publish(run)[0]
    service.fails = False
    assert publish(run) == []
    evaluated(run, 10, acc=0.25)
    assert publish(run) == []
    assert publish(run) == []
    assert service.logged == [
        {"evals/step": 30, "evals/hellaswag.acc": 0.5}, {"evals/step": 10, "evals/hellaswag.acc": 0.25}
    ]  # fmt: skip
    kept = {key: service.asked[key] for key in ("id", "group", "job_type", "mode", "project")}
    assert kept == {
        "id": "abcd1234-evals", "group": "tr900", "job_type": "evaluation", "mode": "online", "project": "tests"
    }  # fmt: skip


def test_without_the_package_nothing_is_said(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    log_to_wandb(run)
    evaluated(run, 10)
    assert publish(run) == []
