"""Steps that wait for samples are told of: with what to do, at times, and not at a launch's first step."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_tools.loader_config import LoaderConfig
from megatron_patches.callbacks.callback import Record
from megatron_patches.callbacks.data_wait import DataWait
from megatron_patches.events.reading import effective, read_events
from megatron_patches.events.tensorboard_files import step_scalars
from megatron_patches.run.progress import DataWaitRecord, Message, Progress, StepRecord
from megatron_patches.run.run_directory import start_launch
from tests.ranks import run_on_ranks
from tests.small_training import SmallData, overrides, train_launch
from tools.run_views.history import read_history

STEP = StepRecord(
    step=1, samples=8, tokens=64, batch_size=8, loss=5.0, learning_rate=1e-3, grad_norm=1.0, seconds=10.0,
    tokens_per_second=6.4, tflops_per_process=1.0, data_wait_seconds=0.0,
)  # fmt: skip


def told(waits: list[float], first: int = 1, evaluates: bool = False, **loader: Any) -> list[Record]:
    """What is told of steps of 10 s that waited so long."""
    heard: list[Record] = []
    trainer: Any = SimpleNamespace(
        progress=Progress(first - 1),
        emit=heard.append,
        config=SimpleNamespace(data=SimpleNamespace(loader=LoaderConfig(**loader)), evaluation=evaluates or None),
    )
    watch = DataWait()
    watch.on_start(trainer)
    for number, wait in enumerate(waits):
        watch.on_record(trainer, replace(STEP, step=first + number, data_wait_seconds=wait))
    return heard


def test_the_first_step_of_a_launch_waits_for_the_first_samples() -> None:
    assert told([600.0, *[0.0] * 100]) == told([*[0.49] * 100]) == []


def test_steps_that_all_wait_need_workers() -> None:
    record, message = told([0.0] * 11 + [2.0] * 14, first=100)
    assert record == DataWaitRecord(
        step=120, first_step=101, waited_seconds=20.0, seconds=200.0, steps_waiting=10, remedy="data.loader.prefetch"
    )
    record, message = told([2.0] * 21, first=100, workers=3)
    assert isinstance(record, DataWaitRecord) and isinstance(message, Message)
    assert (record.first_step, record.step, record.remedy) == (101, 120, "data.loader.workers")
    assert message.text == (
        "steps 101 to 120 waited for data for 20% of their time, 20 of 20 for long: they are read more slowly than "
        "they are trained on; raise data.loader.workers above 3 if cores are free, or bring the data to faster storage"
    )


def test_single_steps_that_wait_need_more_read_ahead() -> None:
    waits = ([0.0] * 9 + [9.0]) * 3
    record, message = told(waits)
    assert isinstance(record, DataWaitRecord) and isinstance(message, Message)
    assert (record.steps_waiting, record.remedy) == (2, "data.loader.prefetch")
    assert "raise data.loader.prefetch above 4" in message.text
    record, message = told(waits, evaluates=True, persistent=False)
    assert isinstance(record, DataWaitRecord) and isinstance(message, Message)
    assert record.remedy == "data.loader.persistent" and "set data.loader.persistent to true" in message.text


def test_it_is_told_once_in_ten_minutes_of_steps() -> None:
    steps = [each.step for each in told([2.0] * 200) if isinstance(each, DataWaitRecord)]
    assert steps == [21, 81, 141]


def test_steps_of_earlier_versions_did_not_say(tmp_path: Path) -> None:
    old = {"step": 1, "loss": 2.0, "tokens": 8, "seconds": 1.0}
    assert "training/data_wait_seconds" not in step_scalars(old)
    assert step_scalars({**old, "data_wait_seconds": 0.25})["training/data_wait_seconds"] == 0.25
    beginning = '{"kind": "step", "time": "2026-01-01T00:00:00.000+00:00", "step": '
    (tmp_path / "0001-trainer.jsonl").write_text(
        f'{beginning}1, "loss": 2.0}}\n{beginning}2, "loss": 2.0, "delivered": "0a", "data_wait_seconds": 0.25}}\n'
    )
    waited = read_history(tmp_path).steps.numbers["data_wait_seconds"].tolist()
    assert str(waited[0]) == "nan" and waited[1] == 0.25


def train_with_slow_samples(launch_directory: str) -> None:
    """Rank 1 alone reads slowly: until 0.1 s after it was asked, however long a step takes on this machine."""
    import time
    from threading import Semaphore

    from data_tools.samples.blended import TrainingSamples
    from megatron_patches.callbacks import data_wait
    from megatron_patches.objectives.batches import TrainingBatches

    read, wait_for, asked = TrainingSamples.read, TrainingBatches._wait_for, Semaphore(0)

    def read_slowly(self: TrainingSamples, located: Any) -> Any:
        asked.acquire()
        time.sleep(0.1 * int(os.environ["RANK"]))
        return read(self, located)

    def ask_and_wait(self: TrainingBatches, step: Any) -> float:
        asked.release()
        return wait_for(self, step)

    TrainingSamples.read = read_slowly  # type: ignore[method-assign]
    TrainingBatches._wait_for = ask_and_wait  # type: ignore[method-assign]
    data_wait._STEPS = 3
    train_launch(launch_directory)


def test_a_slow_reader_on_any_rank_is_on_record(
    small_data: SmallData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    config = small_data.run(tmp_path, overrides(training__steps=5, training__micro_batch_size=4, evaluation="null"))
    launch = start_launch(config)
    run_on_ranks(train_with_slow_samples, 2, str(launch.directory))
    events = read_events(launch.run.events)
    waits = [event for event in events if event.kind == "data_wait"]
    assert [(event.facts["first_step"], event.facts["step"]) for event in waits] == [(2, 4)]
    assert waits[0].facts["remedy"] == "data.loader.workers"
    place = events.index(waits[0])
    assert (events[place - 1].kind, events[place - 1].facts["step"]) == ("step", 4)
    assert "raise data.loader.workers above 1" in events[place + 1].facts["text"]
    steps = [event.facts for event in effective(events, "step")]
    assert all(0.1 <= step["data_wait_seconds"] <= step["seconds"] for step in steps)
    lines = (launch.run.logs / f"{launch.id}.log").read_text().splitlines()
    shown = [line for line in lines if " loss " in line and " data wait " in line]
    assert shown and not any(" 1/5 " in line for line in shown)
