"""The learning rate of a run that is extended: it begins where it was, goes by its shape, and never jumps."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_patches.optim.rate_plot import HEIGHT, rate_plot
from megatron_patches.optim.schedule import learning_rate
from megatron_patches.optim.schedule_config import (
    ConstantScheduleConfig,
    CosineScheduleConfig,
    ExtensionConfig,
    InverseSquareRootScheduleConfig,
    LinearScheduleConfig,
    ScheduleConfig,
    WarmupStableDecayScheduleConfig,
)
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_run
from megatron_patches.run.summary import describe_run, describe_schedule, draw_rates, rate_table
from tests.small_run import write_run


def extended(*shapes: ExtensionConfig) -> ConstantScheduleConfig:
    return ConstantScheduleConfig(name="constant", warmup=100, extensions=list(shapes))


def test_the_run_that_was_to_be_extended() -> None:
    """1,000 steps at 1e-3, then to 10,000 by a cosine to a tenth: nothing jumps, where it once did by a factor of 9."""
    schedule, ends = extended(), [1000, 10_000]
    at = {step: learning_rate(schedule, 1e-3, step, ends) for step in (50, 100, 1000, 1001, 5500, 10_000, 10_001)}
    assert at[50] == pytest.approx(5e-4) and at[100] == at[1000] == 1e-3
    assert at[1001] == pytest.approx(1e-3, rel=1e-6) and at[1001] < 1e-3
    assert at[5500] == pytest.approx(5.5e-4) and at[10_000] == at[10_001] == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("shape", "quarter"),
    [("linear", 0.75), ("cosine", (1 + math.cos(math.pi / 4)) / 2), ("square_root", 0.5), ("constant", 1.0)],
)
def test_shapes(shape: Any, quarter: float) -> None:
    final = None if shape == "constant" else 0.2
    schedule = extended(ExtensionConfig(shape=shape, final_learning_rate=final))
    rates = [learning_rate(schedule, 1.0, at, [200, 300]) for at in (200, 225, 300)]
    assert rates == pytest.approx([1.0, 0.2 + 0.8 * quarter, 1.0 if shape == "constant" else 0.2])


def test_each_extension_begins_where_the_one_before_it_has_ended() -> None:
    schedule = extended(ExtensionConfig(shape="linear", final_learning_rate=0.5), ExtensionConfig(shape="constant"))
    ends = [200, 300, 400, 500]
    rates = {at: learning_rate(schedule, 1.0, at, ends) for at in (250, 300, 350, 400, 450, 500)}
    expected = {250: 0.75, 300: 0.5, 350: 0.5, 400: 0.5, 450: 0.275, 500: 0.05}  # the last one goes as usual
    assert rates == pytest.approx(expected)


BASE = "{name: linear, unit: %s, warmup: %d, final_learning_rate: 1e-3, extensions: %s}"
SHAPES = ["cosine", "linear", "square_root", "constant"]
SIZES = {"steps": 1, "samples": 8, "tokens": 64}
RAMP = ["--training.batch_ramp", "{start: 2, increment: 2, samples: 40}"]


def run(tmp_path: Path, unit: str, length: str, shape: str, *more: str) -> RunConfig:
    extension = "{shape: %s}" % shape  # noqa: UP031  braces
    ends = [str(each * SIZES[length]) for each in (20, 40)]
    given = ["--training.steps", "null", f"--training.{length}", ends[0], "--training.extend_to", ends[1]]
    given += ["--optimizer.learning_rate", "1e-2", "--schedule", BASE % (unit, 4 * SIZES[unit], extension), *more]
    return load_run(write_run(tmp_path / "run.yaml"), given)


@pytest.mark.parametrize("ramp", [[], RAMP], ids=["", "ramp"])
@pytest.mark.parametrize("length", SIZES)
@pytest.mark.parametrize("unit", SIZES)
def test_the_boundary_in_every_unit(tmp_path: Path, unit: str, length: str, ramp: list[str]) -> None:
    """What the schedule and the length are counted in does not matter; with a ramp what is counted in samples moves."""
    for shape in SHAPES:
        config = run(tmp_path, unit, length, shape, *ramp)
        first, last = config.timetable.ends
        size = SIZES[length] * 20
        reached = config.timetable.position(first, length)  # type: ignore[arg-type]
        assert size - SIZES[length] < reached <= size
        end = config.learning_rate(last)
        assert config.learning_rate(first) == pytest.approx(1e-3)
        assert end == pytest.approx(1e-3 if shape == "constant" else 1e-4)
        rates = [config.learning_rate(step) for step in range(first, last + 1)]
        assert sorted(rates, reverse=True) == rates
        middle = config.timetable.position(first + 1, unit) - config.timetable.position(first, unit)  # type: ignore[arg-type]
        assert middle == SIZES[unit]
        if shape == "linear":
            assert rates[1] == pytest.approx(1e-3 - 9e-4 / (last - first))


def test_what_is_said_of_it(tmp_path: Path) -> None:
    given = ["--training.steps", "1000", "--training.extend_by", "[9000, 500]", "--optimizer.learning_rate", "1e-3"]
    schedule = "{name: constant, warmup: 100, extensions: [{}, {shape: constant}]}"
    config = load_run(write_run(tmp_path / "run.yaml"), [*given, "--schedule", schedule])
    assert describe_schedule(config) == (
        "0 to 0.001 in 100 steps, then constant; from step 1,000 on cosine to 0.0001 at step 10,000; "
        "from step 10,000 on constant up to step 10,500"
    )
    assert dict(describe_run(config))["tokens"] == "672,000 in 10,500 steps of 64, extended from 1,000"
    table = {step: (rate, note) for step, rate, note in rate_table(config, 5200)}
    assert table[100] == (1e-3, "warm-up ends") and table[1000] == (1e-3, "an extension begins (E)")
    assert table[5200][1] == "resumes here (R)" and table[5201][1] == ""
    assert table[10_000] == (pytest.approx(1e-4), "an extension begins (E)") and table[10_500][1] == ""
    marks = draw_rates(config, 5200)[-2]
    assert marks.split() == ["E", "R", "E"]
    assert draw_rates(config, 20_000)[-2].split() == ["E", "E"], "a step that the run does not have"


def test_a_plot_is_ascii_in_80_columns() -> None:
    lines = rate_plot(lambda step: step / 1000, 1000, {500: "R"})
    assert all(line.isascii() and len(line) <= 80 for line in lines)
    assert len(lines) == HEIGHT + 3 and lines[0].startswith(" 1.00e+00 ") and lines[0].endswith("*")
    assert lines[HEIGHT].startswith(" 0.00e+00 *") and lines[-1].split() == ["step", "1", "1,000"]
    place = lines[-2].index("R")
    assert all(line[place] in "|*" for line in lines[: HEIGHT + 1])
    assert rate_plot(lambda _: 0.0, 1, {}, 10)[-1].split() == ["step", "1", "1"]


def schedules(unit: str, size: int, first: int) -> st.SearchStrategy[ScheduleConfig]:
    extensions = st.lists(
        st.builds(
            lambda shape, share: ExtensionConfig(
                shape=shape, final_learning_rate=None if shape == "constant" or share is None else share * 1e-4
            ),
            st.sampled_from(SHAPES),
            st.none() | st.floats(0.01, 1),
        ),
        max_size=3,
    )
    common: dict[str, Any] = {
        "unit": st.just(unit),
        "warmup": st.integers(0, first // 2).map(lambda n: n * size),
        "extensions": extensions,
    }
    falling = {**common, "final_learning_rate": st.floats(1e-4, 1e-2)}
    ends = {"decay_end": st.none() | st.integers(first // 2 + 1, 2 * first).map(lambda n: n * size)}
    return st.one_of(
        st.builds(ConstantScheduleConfig, name=st.just("constant"), **common),
        st.builds(InverseSquareRootScheduleConfig, name=st.just("inverse_square_root"), **falling),
        st.builds(LinearScheduleConfig, name=st.just("linear"), **falling, **ends),
        st.builds(CosineScheduleConfig, name=st.just("cosine"), **falling, **ends),
        st.builds(
            WarmupStableDecayScheduleConfig, name=st.just("warmup_stable_decay"), **falling,
            decay=st.integers(1, first // 2).map(lambda n: n * size), shape=st.sampled_from(["linear", "cosine"]),
        ),
    )  # fmt: skip


@st.composite
def courses(draw: st.DrawFn) -> tuple[ScheduleConfig, list[int], int]:
    size, first = draw(st.sampled_from([1, 8])), draw(st.integers(4, 60))
    legs = draw(st.lists(st.integers(1, 60), max_size=3))
    ends = [first]
    for each in legs:
        ends.append(ends[-1] + each)
    return draw(schedules("steps", size, first)), [end * size for end in ends], size


@settings(max_examples=300)
@given(courses())
def test_nothing_jumps(found: tuple[ScheduleConfig, list[int], int]) -> None:
    """Where a course is cut into finer and finer steps its changes go to 0, across the boundaries too.

    Not a bound by a slope: square_root falls infinitely steeply at its beginning.
    """
    schedule, ends, size = found
    peak, fine = 1e-2, 1e-6 * size

    def near(at: float) -> float:
        return learning_rate(schedule, peak, at, ends)  # type: ignore[arg-type]

    for end in ends:
        assert abs(near(end + fine) - near(end)) < 2e-3 * peak
        assert abs(near(end) - near(end - fine)) < 2e-3 * peak
    for shape, start, end in zip([each.shape for each in schedule.extensions], ends[:-1], ends[1:], strict=False):
        steepest = {"linear": 1.0, "cosine": math.pi / 2, "constant": 0.0}.get(shape)
        if steepest is not None:
            fall = abs(near(start) - near(end)) / (end - start)
            for at in range(start, end, size):
                assert abs(near(at + size) - near(at)) <= steepest * fall * size * (1 + 1e-9) + 1e-15
