"""A rehearsal: what is drawn together, what stays, and that it leaves the run itself alone."""

from math import lcm
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_patches.artefacts.run_folder import rehearsal_of
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.run.reading import load_run, read_run
from megatron_patches.run.rehearsal import claim, rehearse, scaled, whole_steps
from megatron_patches.run.run_directory import run_directory, start_launch
from tests.small_run import SMALL_RUN, write_run

LONG = SMALL_RUN.replace("steps: 10,", "steps: 1000,").replace("every_steps: 5", "every_steps: 100")
LONG = LONG.replace("warmup: 2", "warmup: 200")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINYARD_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def rehearsed(folder: Path, steps: int, *overrides: str, text: str = LONG) -> Any:
    return rehearse(
        read_run(write_run(folder / "tr8-base" / "tr8a-long.yaml", text), overrides), steps, overrides
    ).config


def test_what_lies_along_the_run_is_drawn_together_and_a_step_stays_as_it_is(tmp_path: Path) -> None:
    given = [
        "--evaluation", "{every_steps: 500, samples: 7}", "--logging.every_steps", "100",
        "--checkpoint.ephemeral_every_steps", "20", "--checkpoint.weights_every_steps", "250",
    ]  # fmt: skip
    found = rehearsed(tmp_path, 100, *given)
    whole = load_run(tmp_path / "tr8-base" / "tr8a-long.yaml", given)
    assert (found.name, found.timetable.steps, found.schedule.warmup) == ("tr8a-long-rehearsal-1", 100, 20)
    assert (found.logging.every_steps, found.evaluation.every_steps, found.evaluation.samples) == (10, 50, 7)
    assert found.checkpoint.every_steps == 25, "four saves at most"
    assert (found.checkpoint.ephemeral_every_steps, found.checkpoint.weights_every_steps) == (2, 25)
    assert found.checkpoint.keep_last == 1
    for section in ("model", "data", "objective", "optimizer", "parallel"):
        assert getattr(found, section) == getattr(whole, section)
    assert found.training == whole.training.model_copy(update={"steps": 100})


@pytest.mark.parametrize("length", ["training.samples", "training.tokens"])
@pytest.mark.parametrize("unit", ["steps", "samples", "tokens"])
def test_a_length_in_samples_or_tokens_becomes_steps_and_the_schedule_keeps_its_unit(
    tmp_path: Path, length: str, unit: str
) -> None:
    size = {"steps": 1, "samples": 8, "tokens": 64}
    given = ["--training.steps", "null", f"--{length}", str(1000 * size[length.partition(".")[2]])]
    schedule = {"name": "cosine", "unit": unit, "warmup": 200 * size[unit], "decay_end": 900 * size[unit]}
    found = rehearsed(tmp_path, 50, *given, "--schedule", yaml.safe_dump(schedule, default_flow_style=True).strip())
    assert (found.training.steps, found.training.samples, found.training.tokens) == (50, None, None)
    assert (found.schedule.unit, found.schedule.warmup) == (unit, 10 * size[unit])
    assert found.schedule.decay_end == 45 * size[unit]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 333, 999])
@pytest.mark.parametrize(
    "given",
    [
        ["--schedule", "{name: warmup_stable_decay, warmup: 400, decay: 600}"],
        ["--schedule", "{name: inverse_square_root, warmup: 999, unit: samples, timescale: 1000}"],
        ["--schedule", "{name: constant, warmup: 1000}"],
        ["--schedule", "{name: cosine, warmup: 9, decay_end: 5000}"],
        ["--training.batch_ramp", "{start: 2, increment: 2, samples: 3000}"],
        ["--training.batch_ramp", "{start: 2, increment: 6, samples: 700}", "--schedule.unit", "tokens"],
        ["--training.global_batch_size", "512", "--training.batch_ramp", "{start: 2, increment: 30, samples: 8000}"],
        ["--profile", "{steps: 4}"],
        [
            "--checkpoint", "{every_steps: 100, keep_last: 2, keep_every_steps: 300, keep_best: 1}",
            "--evaluation", "{every_steps: 70, samples: 1}", "--checkpoint.weights_every_steps", "70",
        ],
        ["--checkpoint", "{every_steps: 7, ephemeral_every_steps: 6, weights_every_steps: 1000}"],
        ["--checkpoint.weights_every_steps", "30"],
    ],
)  # fmt: skip
def test_every_length_is_in_order(tmp_path: Path, steps: int, given: list[str]) -> None:
    """`rehearse` would refuse what is not: a rehearsal passes the checks that its run has passed."""
    found = rehearsed(tmp_path, steps, *given)
    assert found.timetable.steps == steps
    if found.checkpoint.keep_best:
        assert lcm(found.checkpoint.every_steps, found.evaluation.every_steps) <= steps
    if found.training.batch_ramp:
        assert found.training.batch_ramp.start == 2
        assert found.timetable.stretches[-1].batch_size == found.training.global_batch_size


@pytest.mark.parametrize("path", sorted((CHECKOUT / "train").glob("*/*.yaml")), ids=lambda path: path.stem)
def test_every_run_here_can_be_rehearsed(path: Path) -> None:
    for steps in (1, 20):
        found = rehearse(read_run(path), steps).config
        assert (found.timetable.steps, rehearsal_of(found.name)) == (steps, path.stem)


def test_a_ramp_takes_its_share_of_the_steps(tmp_path: Path) -> None:
    given = ["--training.batch_ramp", "{start: 2, increment: 2, samples: 2000}"]
    found = rehearsed(tmp_path, 100, *given)
    whole = load_run(tmp_path / "tr8-base" / "tr8a-long.yaml", given)
    share = whole.timetable.stretches[-1].steps_before / 1000
    assert [stretch.batch_size for stretch in found.timetable.stretches] == [2, 4, 6, 8]
    assert found.timetable.stretches[-1].steps_before == pytest.approx(100 * share, abs=2)


def test_copies_and_weights_and_biases_only_where_they_are_asked_for(tmp_path: Path) -> None:
    text = LONG + "storage: {locations: [{to: file:///elsewhere}]}\nlogging: {wandb: {project: real}, every_steps: 5}\n"
    found = rehearsed(tmp_path, 20, text=text)
    assert found.storage.locations == [] and found.logging.wandb is None
    asked = rehearsed(tmp_path, 20, "--logging.wandb.project", "trials", text=text)
    assert asked.logging.wandb.project == "trials" and asked.storage.locations == []
    assert rehearsed(tmp_path, 20, "--logging.wandb", "null", text=text).logging.wandb is None


def test_each_has_a_folder_of_its_own_and_a_stopped_one_goes_on(tmp_path: Path, runs: Path) -> None:
    first = rehearsed(tmp_path, 20)
    claim(run_directory(first))
    launch = start_launch(first)
    assert launch.run.path == runs / "tr8a-long-rehearsal-1" and not (runs / "tr8a-long").exists()
    assert rehearsed(tmp_path, 20).name == "tr8a-long-rehearsal-2", "what did not stop starts afresh"
    with pytest.raises(TrainyardError, match="taken by another rehearsal just now; start this one again"):
        claim(run_directory(first))

    launch.stopped.touch()
    assert rehearsed(tmp_path, 20).name == "tr8a-long-rehearsal-1"
    assert rehearsed(tmp_path, 30).name == "tr8a-long-rehearsal-2", "another one is not continued"
    claim(run_directory(first))


def test_what_cannot_be_rehearsed(tmp_path: Path) -> None:
    with pytest.raises(TrainyardError, match=r"--rehearse 1000: tr8a-long has 1,000 steps.* use at most 999"):
        rehearsed(tmp_path, 1000)
    for text in ("", "0", "-3", "2.5", "many", "9" * 30, "\N{ARABIC-INDIC DIGIT FIVE}"):
        with pytest.raises(TrainyardError, match="--rehearse takes a number of steps"):
            whole_steps(text)
    assert whole_steps("20") == 20


def test_a_run_that_is_refused_is_refused_for_itself(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.yaml", LONG)
    wrong = read_run(path, ["--checkpoint.every_steps", "1001"])
    assert rehearse(wrong, 20) is wrong and "beyond the run's 1,000 steps" in wrong.texts()[0]


def test_no_run_is_called_as_a_rehearsal_is(tmp_path: Path) -> None:
    with pytest.raises(TrainyardError, match="cannot be called tr8a-rehearsal-1, as a rehearsal of tr8a is; rename"):
        load_run(write_run(tmp_path / "tr8a-rehearsal-1.yaml"))


def test_the_scaled_settings_change_nothing_else(tmp_path: Path) -> None:
    config = load_run(write_run(tmp_path / "run.yaml", LONG))
    drawn, whole = scaled(config, 20), config.model_dump()
    changed = {
        f"{section}.{key}" for section, keys in whole.items() if isinstance(keys, dict)
        for key in keys if drawn[section][key] != keys[key]
    }  # fmt: skip
    assert changed == {"training.steps", "schedule.warmup", "checkpoint.every_steps", "checkpoint.keep_last"}
