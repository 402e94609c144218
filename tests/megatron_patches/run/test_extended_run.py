"""Runs that are extended: where they end in every unit, what is refused, and their rehearsals."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.errors import TrainyardError
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved, load_run, read_run, to_yaml
from megatron_patches.run.rehearsal import rehearse
from tests.small_run import write_run

SAMPLES = "--training.steps null --training.samples 83"
RAMP = "--training.batch_ramp '{start: 4, increment: 4, samples: 40}'"
TOKENS = "--training.steps null --training.tokens 650"


def run(tmp_path: Path, settings: str) -> RunConfig:
    return load_run(write_run(tmp_path / "tr8-base" / "tr8-1K-base.yaml"), shlex.split(settings))


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ("", [10]),
        ("--training.extend_to 40", [10, 40]),
        ("--training.extend_to 4e1", [10, 40]),
        ("--training.extend_to '[40, 60]'", [10, 40, 60]),
        ("--training.extend_by '[30, 2e1]'", [10, 40, 60]),
        (f"{SAMPLES} --training.extend_to 170", [10, 21]),
        (f"{SAMPLES} --training.extend_by 5", [10, 11]),  # from the end that was given, not from the whole steps in it
        (f"{TOKENS} --training.extend_to '[1300, 1400]'", [10, 20, 21]),
        ("--training.extend_to 40 --training.batch_ramp '{start: 2, increment: 2, samples: 70}'", [10, 40]),
        (f"{SAMPLES} --training.extend_to 200 {RAMP}", [15, 30]),
    ],
)
def test_ends(tmp_path: Path, settings: str, ends: list[int]) -> None:
    config = run(tmp_path, settings)
    assert (config.timetable.ends, config.timetable.steps) == (ends, ends[-1])
    assert config.timetable.end == config.timetable.after(ends[-1])
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(config))
    assert load_resolved(path) == config


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("--training.extend_to 5", "training: extend_to 5 is not beyond steps 10"),
        ("--training.extend_to 10", "training: extend_to 10 is not beyond steps 10"),
        ("--training.extend_to '[40, 30]'", "extend_to 30 is not beyond extend_to 40, the end before it"),
        ("--training.extend_to 40 --training.extend_by 5", "both say where the run ends; keep one of them"),
        ("--training.extend_to true", "true is not a whole number"),
        ("--training.extend_by 2.5", "2.5 is not a whole number"),
        ("--training.extend_by 0", "0 is not greater than 0"),
        ("--schedule.extensions '{shape: linear}'", "the course of 1 extension, and it is not extended; set training"),
        ("--training.extend_to 40 --schedule.extensions '[{}, {}]'", "training.extend_to extends it 1 time; give 1"),
        ("--training.extend_to 40 --schedule.extensions.shape cube", '"cube" is not '),
        (
            "--training.extend_to 40 --schedule.extensions '{shape: constant, final_learning_rate: 0}'",
            "final_learning_rate has no effect with shape constant",
        ),
        (
            "--training.extend_to 40 --schedule.extensions.final_learning_rate 1e-4",
            "final_learning_rate 0.0001 is above 6e-05, the rate reached at step 10",
        ),
        ("--training.extend_to 40 --schedule.final_learning_rate 0", "the learning rate is 0 at step 10, where"),
        (
            "--training.extend_by '[5, 5]' --schedule.extensions '[{final_learning_rate: 0}, {}]'",
            "training.extend_by: the learning rate is 0 at step 15, where",
        ),
        (
            f"{SAMPLES} --training.extend_to 87",
            "no step fits between 83 and 87 samples; a step has 8 there, so end at",
        ),
        (
            f"{TOKENS} --training.extend_by 10",
            "no step fits between 650 and 660 tokens; a step has 64 there, so end",
        ),
        ("--training.extend_to 40 --schedule.warmup 10", "schedule.warmup 10 leaves nothing of the 10 steps after it"),
        (
            "--training.extend_to 40 --checkpoint.every_steps 41",
            "every_steps 41 is beyond the run's 40 steps",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, settings: str, told: str) -> None:
    with pytest.raises(TrainyardError) as caught:
        run(tmp_path, settings)
    assert told in str(caught.value) and len(str(caught.value).splitlines()) == 1, caught.value


def rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, settings: str) -> Any:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    path = write_run(tmp_path / "tr8-base" / "tr8-1K-base.yaml")
    return rehearse(read_run(path, shlex.split(settings)), steps).config


LONG = "--training.steps 1000 --training.extend_by '[3000, 6000]' --schedule.warmup 500 --checkpoint.every_steps 100"


@pytest.mark.parametrize(
    ("steps", "ends"),
    [(20, [2, 8, 20]), (100, [10, 40, 100]), (3, [1, 2, 3]), (4, [1, 2, 4]), (9999, [1000, 4000, 9999])],
)
def test_a_rehearsal_keeps_the_parts_in_proportion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, ends: list[int]
) -> None:
    shapes = "--schedule.extensions '[{shape: constant}, {final_learning_rate: 1e-5}]'"
    found = rehearsed(tmp_path, monkeypatch, steps, f"{LONG} {shapes}")
    assert found.timetable.ends == ends
    assert found.schedule.warmup == {2: 1, 10: 5, 1: 0, 1000: 500}[ends[0]]
    rates = [found.learning_rate(step) for step in ends]
    assert rates == pytest.approx([6e-5, 6e-5, 1e-5])


@pytest.mark.parametrize("unit", ["samples", "tokens"])
def test_a_rehearsal_of_one_that_is_told_in_other_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    size = {"samples": 8, "tokens": 64}[unit]
    given = f"--training.steps null --training.{unit} {1000 * size} --training.extend_to {5000 * size}"
    found = rehearsed(tmp_path, monkeypatch, 50, f"{given} --schedule.unit {unit} --schedule.warmup {100 * size}")
    assert (found.timetable.ends, found.schedule.warmup) == ([10, 50], size)


def test_a_rehearsal_has_a_step_of_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainyardError, match=r"is extended 2 times, and a rehearsal has a step of each.*at least 3"):
        rehearsed(tmp_path, monkeypatch, 2, LONG)
