"""The columns of a run's steps are what its events say."""

import math
from pathlib import Path

import numpy as np
import pytest

from megatron_patches.events import columns as columns_module
from megatron_patches.events.columns import empty_columns, scan_steps
from megatron_patches.events.reading import Event, effective, read_events
from megatron_patches.events.writing import EventWriter

WRITTEN = ("tokens", "batch_size", "loss", "seconds", "loss_scale")
WANTED = ("tokens", "loss", "seconds")


def write(folder: Path, launch: str, start: int, losses: dict[int, float], **more: object) -> None:
    writer = EventWriter(folder, launch, "trainer")
    writer.write("start", step=start)
    for step, loss in losses.items():
        writer.write("step", step=step, tokens=step * 10, batch_size=2, loss=loss, seconds=1e-7, **more)
    writer.close()


def test_columns_are_what_the_events_say(tmp_path: Path) -> None:
    """Also across launches that rolled steps back, and behind the 9,999th launch."""
    write(tmp_path, "0001", 0, {1: 3.5, 2: 0.30000000000000004, 3: 1e-20, 4: -2.25})
    write(tmp_path, "0002", 2, {3: 3.0, 4: 4.0})
    write(tmp_path, "9999", 3, {4: 4.5, 5: 5.5}, loss_scale=65536.0)
    write(tmp_path, "10000", 4, {5: 6.5}, loss_scale=None)
    columns, problems = scan_steps(tmp_path, WANTED, WRITTEN)
    events = effective(read_events(tmp_path), "step")
    assert problems == []
    assert columns.steps.tolist() == [event.facts["step"] for event in events] == [1, 2, 3, 4, 5]
    for name in WANTED:
        assert columns.numbers[name].tolist() == [event.facts[name] for event in events], name
    assert columns.began.tolist() == [0, 0, 2, 3, 4]


def test_a_hash_is_passed_over_without_parsing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "0001", 0, {1: 3.5, 2: 3.25}, delivered="00ff00ff00ff00ff")
    parsed: list[bytes] = []
    real = columns_module.parse_event

    def parse(line: bytes, launch: str, origin: str) -> Event:
        parsed.append(line[:16])
        return real(line, launch, origin)

    monkeypatch.setattr(columns_module, "parse_event", parse)
    columns, problems = scan_steps(tmp_path, WANTED, (*WRITTEN, "delivered"))
    assert (columns.numbers["loss"].tolist(), problems) == ([3.5, 3.25], [])
    assert parsed == [b'{"kind": "start"']


def test_a_launch_that_trained_nothing_rolls_back_too(tmp_path: Path) -> None:
    write(tmp_path, "0001", 0, {1: 1.0, 2: 2.0, 3: 3.0})
    write(tmp_path, "0002", 1, {})
    assert scan_steps(tmp_path, WANTED, WRITTEN)[0].steps.tolist() == [1]


def test_numbers_that_are_not_finite_or_not_there(tmp_path: Path) -> None:
    write(tmp_path, "0001", 0, {1: math.nan, 2: math.inf, 3: -math.inf})
    with (tmp_path / "0001-trainer.jsonl").open("a") as file:
        file.write('{"kind": "step", "time": "2026-01-01T00:00:00.000+00:00", "step": 4, "loss": 4.0}\n')
        file.write('{"kind": "step", "time": "2026-01-01T00:00:00.000+00:00", "loss": 5.0, "step": 5, "new": "x"}\n')
    columns, problems = scan_steps(tmp_path, WANTED, WRITTEN)
    assert problems == []
    assert columns.numbers["loss"].tolist() == [pytest.approx(math.nan, nan_ok=True), math.inf, -math.inf, 4.0, 5.0]
    assert np.isnan(columns.numbers["seconds"]).tolist() == [False, False, False, True, True]


def test_of_a_step_that_is_there_twice_the_last_counts(tmp_path: Path) -> None:
    write(tmp_path, "0001", 0, {1: 1.0, 3: 3.0})
    write(tmp_path, "0001", 3, {2: 2.0, 3: 3.5})
    columns, _ = scan_steps(tmp_path, WANTED, WRITTEN)
    assert dict(zip(columns.steps.tolist(), columns.numbers["loss"].tolist(), strict=True)) == {1: 1.0, 2: 2.0, 3: 3.5}


def test_damage_is_told_and_passed_over(tmp_path: Path) -> None:
    """A torn last line is none: its writer was killed, or is at it."""
    write(tmp_path, "0001", 0, {1: 1.0})
    path = tmp_path / "0001-trainer.jsonl"
    good = path.read_bytes().splitlines(keepends=True)[1]
    bad = [good.replace(b'"loss": 1.0', b'"loss": "low"'), good.replace(b'"step": 1', b'"step": -1'), good[:-9] + b"\n"]
    with path.open("ab") as file:
        file.write(b"".join([*bad, *bad, good.replace(b'"step": 1', b'"step": 2'), good[:40]]))
    (tmp_path / "0002-trainer.jsonl").mkdir()
    columns, problems = scan_steps(tmp_path, WANTED, WRITTEN)
    assert columns.steps.tolist() == [1, 2]
    assert problems[0] == f"{path}:3 is not an event: loss is no number"
    assert problems[3] == f"{path} has 3 more lines that are no events"
    assert problems[4] == f"{tmp_path / '0002-trainer.jsonl'} is a folder, where a file is expected; move it away"
    assert len(problems) == 5


def test_no_events_are_no_columns(tmp_path: Path) -> None:
    columns, problems = scan_steps(tmp_path / "nothing", WANTED, WRITTEN)
    assert (len(columns), problems) == (0, [])
    assert columns.numbers.keys() == empty_columns(WANTED).numbers.keys() == set(WANTED)
