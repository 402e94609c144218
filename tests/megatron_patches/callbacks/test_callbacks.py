"""What a run leaves for people: log lines, TensorBoard, Weights & Biases; and what stops it."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.callbacks.console_log import ConsoleLog, step_line
from megatron_patches.callbacks.event_recorder import EventRecorder
from megatron_patches.callbacks.finite_guard import FiniteGuard
from megatron_patches.callbacks.tensorboard_log import TensorBoardLog
from megatron_patches.run.events import EventWriter, effective, read_events
from megatron_patches.run.progress import Message, StepRecord
from megatron_patches.run.run_directory import Launch, start_launch
from megatron_patches.training.device_numbers import DeviceNumbers
from megatron_patches.training.trainer import Trainer
from tests.ranks import RankFailed, run_on_ranks
from tests.small_training import SmallData, overrides, train_launch

RECORD = StepRecord(
    step=5, samples=40, tokens=640, batch_size=8, loss=5.25, learning_rate=6e-4, grad_norm=1.5, seconds=2.0,
    tokens_per_second=2000.0, tflops_per_process=400.0,
)  # fmt: skip


def test_a_step_in_one_readable_line() -> None:
    assert step_line(RECORD, 65, 60.0, peak=None) == (
        "step  5/65 | samples 40 | tokens 640 | loss 5.2500 | lr 6.000e-04 | grad norm 1.500 | 2,000 tokens/s | "
        "400 TFLOP/s | ETA 1:00:00"
    )


def test_mfu_only_where_the_peak_is_known() -> None:
    assert "MFU 40.4%" in step_line(RECORD, 65, 60.0, peak=989.4)


class Listener(Callback):
    """Keeps what it hears; answers a step with a message, as the finite guard does."""

    def __init__(self, name: str, heard: list[tuple[str, str]]) -> None:
        self.name, self.heard = name, heard

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        self.heard.append((self.name, type(record).__name__))
        if self.name == "first" and isinstance(record, StepRecord):
            trainer.emit(Message("a step"))


def test_records_reach_all_callbacks_in_their_order() -> None:
    heard: list[tuple[str, str]] = []
    nothing: Any = None
    trainer = Trainer(
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        [Listener("first", heard), Listener("last", heard)],
    )
    trainer.emit(RECORD)
    assert heard == [("first", "StepRecord"), ("first", "Message"), ("last", "Message"), ("last", "StepRecord")]


def test_a_kind_that_nobody_knows_is_passed_over(tmp_path: Path, small_data: SmallData) -> None:
    """So a new kind of record needs a change of those alone who care."""
    unknown: Any = object()
    loop: Any = None
    log = ConsoleLog(tmp_path / "log", small_data.run(tmp_path), peak=None)
    events = EventRecorder(EventWriter(tmp_path / "events", "0001", "trainer"))
    for callback in (Callback(), log, events, TensorBoardLog(tmp_path), FiniteGuard()):
        callback.on_record(loop, unknown)
        callback.on_record(loop, Message("before the start"))
        callback.close()
    assert (tmp_path / "log").read_text() == "before the start\n"
    assert [event.facts for event in read_events(tmp_path / "events")] == [{"text": "before the start"}]


def train(small_data: SmallData, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Launch:
    monkeypatch.setenv("TRAINYARD_RUNS", str(folder / "runs"))
    launch = start_launch(small_data.run(folder, arguments))
    run_on_ranks(train_launch, 1, str(launch.directory), {"WANDB_SILENT": "true"})
    return launch


def test_tensorboard_shows_each_step_once_after_a_resume(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    until_5 = overrides(training__steps=5, schedule__decay_end=5)
    launch = train(small_data, tmp_path, monkeypatch, *until_5)
    train(small_data, tmp_path, monkeypatch, "--training.steps=8", "--schedule.decay_end=5")
    board = EventAccumulator(str(launch.run.tensorboard))
    board.Reload()
    loss = {scalar.step: scalar.value for scalar in board.Scalars("training/loss")}
    expected = {e.facts["step"]: e.facts["loss"] for e in effective(read_events(launch.run.events), "step")}
    assert [scalar.step for scalar in board.Scalars("training/loss")] == list(range(1, 9))
    assert loss == pytest.approx(expected, rel=1e-6)
    assert [scalar.step for scalar in board.Scalars("validation/loss")] == [4, 5, 8]


def test_the_log_has_a_line_for_each_step_and_what_happened_between(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = train(small_data, tmp_path, monkeypatch, "--logging.every_steps=2")
    lines = (launch.run.logs / "0001.log").read_text().splitlines()
    assert [line.split(" |")[0] for line in lines if line.startswith("step ")] == [f"step {n}/8" for n in (2, 4, 6, 8)]
    saved = [line for line in lines if line.startswith("saved")]
    assert [line.split(" (")[0] for line in saved] == [f"saved step-000000000{n}" for n in (3, 6, 8)]
    assert all(re.search(r"\([\d,]+ bytes in \d+\.\d\d s, training waited \d+\.\d\d s\)", line) for line in saved)
    assert sum(line.startswith("validation after step") for line in lines) == 2
    assert lines[-1] == "finished at step 8 of 8" and "MFU" not in "".join(lines)


def test_weights_and_biases_is_offline_and_keeps_one_id(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    arguments = overrides(training__steps=5, schedule__decay_end=5, logging__wandb="{project: tests}")
    launch = train(small_data, tmp_path, monkeypatch, *arguments)
    train(small_data, tmp_path, monkeypatch, *arguments[1:], "--training.steps=8")
    identity = read_manifest(launch.run.manifest).facts["wandb_id"]
    folders = sorted(path.name for path in (launch.run.path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and all(name.endswith(f"-{identity}") for name in folders)


def train_with_a_bad_gradient(launch_directory: str) -> None:
    """Train; in step 5 a weight of the loss is infinite."""
    from dataclasses import replace

    from megatron_patches.objectives.batches import TrainingBatches

    read = TrainingBatches.at

    def spoil(self: TrainingBatches, consumed: int):  # type: ignore[no-untyped-def]
        batches = read(self, consumed)
        return [replace(batch, weights=batch.weights * math.inf) for batch in batches] if consumed == 32 else batches

    TrainingBatches.at = spoil  # type: ignore[method-assign]
    train_launch(launch_directory)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_loss_that_is_no_number_stops_all_ranks_and_spoils_nothing(
    ranks: int, small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    config = small_data.run(tmp_path)
    launch = start_launch(config)
    with pytest.raises(RankFailed, match=r"step 5: loss is (inf|nan), gradient norm is .*; the update was left out"):
        run_on_ranks(train_with_a_bad_gradient, ranks, str(launch.directory))
    last = effective(read_events(launch.run.events), "step")[-1]
    failure = read_events(launch.run.events)[-1]
    assert failure.kind == "failure" and failure.facts["text"].startswith("step 5: loss is")
    assert last.facts["step"] == 5 and re.fullmatch("inf|nan", last.facts["loss"]), "the bad step is on record"

    run_on_ranks(train_launch, ranks, str(start_launch(config).directory))
    assert all(math.isfinite(e.facts["loss"]) for e in effective(read_events(launch.run.events), "step"))


def test_numbers_on_their_way_are_those_of_their_step() -> None:
    """The trainer's tensors are written over by later steps; what was sent off before is not."""
    values = torch.tensor([5.5, 1.25])
    numbers = DeviceNumbers(torch.stack([*values]))
    values.zero_()
    assert numbers.read() == [5.5, 1.25]
