"""Learning rates by hand, in every unit, and what a run says of them."""

import math
from pathlib import Path

import pytest

from megatron_patches.errors import TrainyardError
from megatron_patches.optim.schedule import learning_rate
from megatron_patches.optim.schedule_config import (
    ConstantScheduleConfig,
    CosineScheduleConfig,
    InverseSquareRootScheduleConfig,
    LinearScheduleConfig,
    WarmupStableDecayScheduleConfig,
)
from megatron_patches.run.reading import load_run
from megatron_patches.run.summary import describe_schedule, learning_rate_plan
from tests.small_run import write_run


def test_constant_is_constant() -> None:
    """A "constant" phase that decays cost a factor of nine at the resume of another system."""
    schedule = ConstantScheduleConfig(name="constant", warmup=100)
    rates = [learning_rate(schedule, 1e-3, step, [1000]) for step in range(1, 1001)]
    assert rates[0] == pytest.approx(1e-5) and rates[49] == pytest.approx(5e-4)
    assert set(rates[99:]) == {1e-3}


def test_cosine() -> None:
    schedule = CosineScheduleConfig(name="cosine", warmup=10, final_learning_rate=1e-4)
    at = {step: learning_rate(schedule, 1e-3, step, [110]) for step in (10, 35, 60, 110)}
    assert at[10] == 1e-3 and at[60] == pytest.approx(5.5e-4) and at[110] == pytest.approx(1e-4)
    assert at[35] == pytest.approx(1e-4 + 9e-4 * (1 + math.cos(math.pi / 4)) / 2)


def test_linear_reaches_its_floor_at_decay_end_and_stays() -> None:
    schedule = LinearScheduleConfig(name="linear", decay_end=50)
    assert learning_rate(schedule, 1.0, 25, [100]) == 0.5
    assert learning_rate(schedule, 1.0, 50, [100]) == learning_rate(schedule, 1.0, 100, [100]) == 0.0


def test_gpt2_124m_of_the_domain_token_experiment() -> None:
    schedule = CosineScheduleConfig(name="cosine", warmup=715, final_learning_rate=6e-5)
    assert learning_rate(schedule, 6e-4, 715, [19073]) == 6e-4
    assert learning_rate(schedule, 6e-4, 19073, [19073]) == pytest.approx(6e-5)


def test_inverse_square_root_is_t5s() -> None:
    """Peak 0.01 and timescale 10,000: 1 / sqrt(max(step, 10,000)), which is Adafactor's relative step too."""
    schedule = InverseSquareRootScheduleConfig(name="inverse_square_root", timescale=10_000)
    for step in (1, 9_999, 10_000, 10_001, 40_000, 524_288):
        assert learning_rate(schedule, 1e-2, step, [524_288]) == pytest.approx(min(1e-2, 1 / math.sqrt(step)))


def test_inverse_square_root_falls_from_its_warmup_to_its_floor() -> None:
    schedule = InverseSquareRootScheduleConfig(name="inverse_square_root", warmup=100, final_learning_rate=0.25)
    at = {step: learning_rate(schedule, 1.0, step, [10_000]) for step in (50, 100, 400, 1600, 1601, 10_000)}
    assert at == {50: 0.5, 100: 1.0, 400: 0.5, 1600: 0.25, 1601: 0.25, 10_000: 0.25}


@pytest.mark.parametrize(
    ("shape", "quarter", "half"),
    [("linear", 0.75, 0.5), ("cosine", (1 + math.cos(math.pi / 4)) / 2, 0.5), ("square_root", 0.5, 1 - math.sqrt(0.5))],
)
def test_warmup_stable_decay(shape: str, quarter: float, half: float) -> None:
    schedule = WarmupStableDecayScheduleConfig(
        name="warmup_stable_decay", warmup=10, decay=40, shape=shape, final_learning_rate=0.1, decay_end=90
    )
    rates = {step: learning_rate(schedule, 1.1, step, [100]) for step in (5, 10, 30, 50, 60, 70, 90, 100)}
    expected = {5: 0.55, 10: 1.1, 30: 1.1, 50: 1.1, 60: 0.1 + quarter, 70: 0.1 + half, 90: 0.1, 100: 0.1}
    assert rates == pytest.approx(expected)


def test_a_decay_of_stable_ends_with_the_run() -> None:
    schedule = WarmupStableDecayScheduleConfig(name="warmup_stable_decay", decay=10)
    assert [learning_rate(schedule, 1.0, step, [100]) for step in (90, 95, 100)] == [1.0, 0.5, 0.0]


RUN_ENDS = {"steps": 100, "samples": 800, "tokens": 6400}


@pytest.mark.parametrize("unit", RUN_ENDS)
def test_units_of_a_run(unit: str, tmp_path: Path) -> None:
    """The same schedule in each unit gives the same rates: a step is 8 samples of 8 tokens."""
    scale = RUN_ENDS[unit] // 100
    arguments = ["--training.steps=100", f"--schedule={{name: linear, unit: {unit}, warmup: {10 * scale}}}"]
    run = load_run(write_run(tmp_path / "run.yaml"), arguments)
    assert [run.learning_rate(step) / 6e-4 for step in (1, 10, 55, 100)] == pytest.approx([0.1, 1, 0.5, 0])


def test_samples_while_the_batch_grows(tmp_path: Path) -> None:
    """2 steps of 4 samples, 1 of 6 and 1 of 8: a warm-up in samples grows faster with every size."""
    arguments = ["--training.steps=4", "--training.batch_ramp={start: 4, increment: 2, samples: 12}"]
    arguments += ["--schedule={name: constant, unit: samples, warmup: 14}", "--checkpoint.every_steps=2"]
    run = load_run(write_run(tmp_path / "run.yaml"), arguments)
    rates = [run.learning_rate(step) / 6e-4 for step in range(1, run.timetable.steps + 1)]
    assert rates == pytest.approx([4 / 14, 8 / 14, 1, 1])


PLANS = {
    "{name: constant}": ("0.0006, then constant", [1, 100]),
    "{name: linear, warmup: 10, decay_end: 50}": (
        "0 to 0.0006 in 10 steps, linear to 0 at step 50",
        [1, 10, 20, 30, 40, 50, 100],
    ),
    "{name: warmup_stable_decay, warmup: 1, decay: 1}": (
        "0 to 0.0006 in 1 step, constant, then linear in the last 1 step to 0 at step 100",
        [1, 99, 100],
    ),
    "{name: cosine, unit: samples, warmup: 80}": (
        "0 to 0.0006 in 80 samples, cosine to 6e-05 at sample 800",
        [1, 10, 32, 55, 77, 100],
    ),
    "{name: inverse_square_root, timescale: 20}": (
        "0.0006, from 20 steps on by their inverse square root, not below 0",
        [1, 20, 40, 60, 80, 100],
    ),
    "{name: warmup_stable_decay, warmup: 10, decay: 20, shape: cosine}": (
        "0 to 0.0006 in 10 steps, constant, then cosine in the last 20 steps to 0 at step 100",
        [1, 10, 80, 85, 90, 95, 100],
    ),
}


@pytest.mark.parametrize("schedule", PLANS)
def test_what_a_run_says_of_its_schedule(schedule: str, tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run.yaml"), ["--training.steps=100", f"--schedule={schedule}"])
    plan = learning_rate_plan(run)
    assert (describe_schedule(run), [step for step, _ in plan]) == PLANS[schedule]
    assert all(rate == run.learning_rate(step) for step, rate in plan)


def test_a_root_that_would_jump(tmp_path: Path) -> None:
    with pytest.raises(TrainyardError, match=r"schedule.timescale 3 is before the end of the warm-up, 5,.*at least 5"):
        load_run(write_run(tmp_path / "run.yaml"), ["--schedule={name: inverse_square_root, warmup: 5, timescale: 3}"])
