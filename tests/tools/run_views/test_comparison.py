"""Runs compared: what each has reached, and where all have come equally far."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest

from megatron_patches.errors import TrainyardError
from tests.tools.recorded_runs import record_launch
from tools.run_views import history as histories_module
from tools.run_views.comparison import METRICS, Measurement, compare_histories, natural_axis, reached
from tools.run_views.comparison_csv import as_csv
from tools.run_views.comparison_picture import curve_of, draw_comparison, smoothed, text_curves
from tools.run_views.history import History, read_histories, read_history

METRIC = {metric.name: metric for metric in METRICS}
LOSSES = [METRIC["training_loss"], METRIC["validation_loss"]]


@pytest.fixture
def long(tmp_path: Path) -> History:
    """Ten steps in two launches, the second of which does steps 5 and 6 again; validated every two steps."""
    validations = [(step, "validation", 5.0 - step / 10) for step in (2, 4, 6)]
    record_launch(tmp_path / "long", "0001", 0, dict.fromkeys(range(1, 7), 9.0), validations)
    later = [(6, "validation", 4.0), (8, "validation", 3.0), (10, "validation", 3.5), (10, "code", 2.0)]
    record_launch(tmp_path / "long", "0002", 4, {step: 10.0 - step for step in range(5, 11)}, later)
    return read_history(tmp_path / "long")


@pytest.fixture
def wide(tmp_path: Path) -> History:
    """Four steps of twice the batch, validated at step 2 and 3."""
    validations = [(2, "validation", 4.5), (3, "validation", 4.25)]
    record_launch(tmp_path / "wide", "0001", 0, {1: 9.0, 2: 8.0, 3: 6.0, 4: 5.0}, validations, batch=2)
    return read_history(tmp_path / "wide")


def test_what_a_run_has_reached(long: History) -> None:
    """The first five steps of each launch have no say in its speed; only step 10 is left."""
    found = reached(long, "validation", 3)
    assert (found.steps, found.tokens, found.training_loss, found.averaged) == (10, 10_000, 1.0, 3)
    assert (found.best_validation, found.last_validation) == (Measurement(3.0, 8), Measurement(3.5, 10))
    assert (found.learning_rate, found.seconds_per_step, found.tokens_per_second) == (0.01, 2.0, 500.0)
    assert found.hours == pytest.approx((3 * 9 + 2 + 3 * 9 + 3 * 2) / 3600)
    assert found.not_finite == 0


def test_the_speed_of_a_run_with_few_steps_is_that_of_all(wide: History) -> None:
    assert reached(wide, None, 100).seconds_per_step == 9.0


def test_losses_that_are_not_finite(tmp_path: Path) -> None:
    """They are counted and not averaged, until there are no others."""
    record_launch(tmp_path, "0001", 0, {1: 4.0, 2: math.inf, 3: 2.0, 4: math.nan, 5: math.nan}, [(5, "x", math.nan)])
    history = read_history(tmp_path)
    found = reached(history, "x", 4)
    assert (found.training_loss, found.averaged, found.not_finite) == (2.0, 1, 3)
    assert found.best_validation == Measurement(None)
    assert math.isnan(found.last_validation.value or 0)
    assert math.isnan(reached(history, "x", 2).training_loss or 0)


def test_runs_of_one_batch_are_compared_over_steps(long: History, tmp_path: Path) -> None:
    """At the last step that all have reached, so that training longer is no merit."""
    record_launch(tmp_path / "short", "0001", 0, dict.fromkeys(range(1, 8), 8.0), [(6, "validation", 4.5)])
    short = read_history(tmp_path / "short")
    found = compare_histories([long, short], LOSSES, window=2)
    assert found.point is not None
    assert (found.point.axis, found.point.at, found.point.limited_by, found.point.validation_at) == ("steps", 7, 1, 6)
    assert found.values["training_loss"] == [Measurement(3.5, 7), Measurement(8.0, 7, 4.5)]
    assert found.values["validation_loss"] == [Measurement(4.0, 6), Measurement(4.5, 6, 0.5)]


def test_runs_of_different_batches_are_compared_over_tokens(long: History, wide: History) -> None:
    """8,000 tokens are 8 steps of one and 4 of the other; both were validated at 6,000 tokens."""
    assert natural_axis([long, wide]) == "tokens"
    found = compare_histories([long, wide], LOSSES, window=1)
    assert found.point is not None
    assert (found.point.at, found.point.limited_by, found.point.validation_at) == (8000, 1, 6000)
    assert found.values["training_loss"] == [Measurement(2.0, 8), Measurement(5.0, 4, 3.0)]
    assert found.values["validation_loss"] == [Measurement(4.0, 6), Measurement(4.25, 3, 0.25)]


def test_validations_at_unequal_points_have_no_difference(long: History, tmp_path: Path) -> None:
    record_launch(tmp_path / "odd", "0001", 0, dict.fromkeys(range(1, 11), 8.0), [(5, "validation", 4.5)])
    found = compare_histories([long, read_history(tmp_path / "odd")], LOSSES)
    assert found.point is not None
    assert found.point.validation_at is None
    assert found.values["validation_loss"] == [Measurement(3.5, 10), Measurement(4.5, 5)]


def test_a_run_that_did_not_come_so_far_has_no_value(long: History, wide: History) -> None:
    found = compare_histories([long, wide], LOSSES, axis="steps", at=8, window=1)
    assert found.point is not None
    assert (found.point.limited_by, found.point.validation_at) == (None, 8)
    assert found.values["training_loss"] == [Measurement(2.0, 8), Measurement(None)]
    assert found.values["validation_loss"] == [Measurement(3.0, 8), Measurement(None)]


def test_other_metrics_at_a_point(long: History, wide: History) -> None:
    names = ["learning_rate", "tokens_per_second", "seconds_per_step", "grad_norm", "tflops_per_process"]
    found = compare_histories([long, wide], [METRIC[name] for name in names], axis="steps", at=4, window=3)
    assert [found.values[name][1].value for name in names] == [0.004, pytest.approx(2000 / 9), 9.0, 0.5, 1.5]


def test_a_source_is_chosen_by_its_name(long: History, wide: History) -> None:
    assert compare_histories([wide, long], LOSSES).source == "validation"
    chosen = compare_histories([long, wide], LOSSES, axis="steps", source="code")
    assert [found.last_validation.value for found in chosen.reached] == [2.0, None]
    with pytest.raises(TrainyardError, match="no run was validated on a group math; known here: validation, code"):
        compare_histories([long, wide], LOSSES, source="math")


def test_runs_that_recorded_nothing(wide: History) -> None:
    nothing = read_history(None)
    found = compare_histories([nothing, wide], LOSSES)
    assert found.reached[0].steps is None
    assert found.point is not None
    assert found.values["training_loss"] == [Measurement(None), Measurement(7.0, 4)]
    assert compare_histories([nothing], LOSSES).point is None


def test_steps_without_tokens_are_compared_over_steps(wide: History, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    lines = [f'{{"kind": "step", "time": "2026-01-01T00:00:00.000+00:00", "step": {n}, "loss": 2.0}}\n' for n in (1, 2)]
    (tmp_path / "old" / "0001-trainer.jsonl").write_text("".join(lines))
    assert natural_axis([wide, read_history(tmp_path / "old")]) == "steps"


@pytest.mark.slow
def test_several_processes_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        record_launch(tmp_path / name, "0001", 0, {step: float(ord(name)) for step in range(1, 30)})
    folders = [tmp_path / "a", None, tmp_path / "b", tmp_path / "c"]
    monkeypatch.setattr(histories_module, "_WORTH_PROCESSES", 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    found = read_histories(folders)
    assert [len(each.steps) for each in found] == [29, 0, 29, 29]
    assert [each.steps.numbers["loss"][0] for each in found if len(each.steps)] == [97.0, 98.0, 99.0]


def test_the_csv_is_read_back(long: History, wide: History) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([long, wide], ["first", 'odd, "name"']))))
    assert [row["run"] for row in rows] == ["first"] * 10 + ['odd, "name"'] * 4
    assert rows[5] == {
        "run": "first", "step": "6", "tokens": "6000", "training_loss": "4.0", "learning_rate": "0.006",
        "tokens_per_second": str(1000 / 9), "seconds_per_step": "9.0", "grad_norm": "0.5", "tflops_per_process": "1.5",
        **dict.fromkeys(("data_wait_seconds", "padding", "text_tokens_per_second"), "nan"),  # of earlier versions
        "validation_loss": "4.0", "validation_loss.code": "",
    }  # fmt: skip
    assert [row["validation_loss.code"] for row in rows if row["validation_loss.code"]] == ["2.0"]
    assert [(row["step"], row["validation_loss"]) for row in rows[10:]] == [
        ("1", ""), ("2", "4.5"), ("3", "4.25"), ("4", ""),
    ]  # fmt: skip


def test_a_step_that_was_validated_and_not_trained_has_a_row(tmp_path: Path) -> None:
    line = '{"kind": "validation", "time": "2026-01-01T00:00:00.000+00:00", "step": 0, "tokens": 0, "loss": 7.5}\n'
    (tmp_path / "0001-trainer.jsonl").write_text(line)
    rows = list(csv.DictReader(io.StringIO(as_csv([read_history(tmp_path)], ["run"]))))
    assert [(row["step"], row["tokens"], row["training_loss"], row["validation_loss"]) for row in rows] == [
        ("0", "0", "", "7.5")
    ]


def test_the_panels_of_the_picture(long: History, wide: History) -> None:
    """A panel a metric; training losses raw and smoothed, rates raw alone; a run without steps has no curve."""
    histories = [long, read_history(None), wide]
    names = ["training_loss", "validation_loss", "learning_rate", "tokens_per_second"]
    figure = draw_comparison(histories, ["a x", "b y", "c z"], [METRIC[each] for each in names], "tokens", "validation")
    titles = ["training loss", "validation loss (validation)", "learning rate", "tokens per second"]
    assert [panel.get_title() for panel in figure.axes] == titles
    assert {panel.get_xlabel() for panel in figure.axes} == {"tokens"}
    assert [len(panel.lines) for panel in figure.axes] == [4, 2, 2, 4]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a x", "c z"]
    raw, line = figure.axes[0].lines[:2]
    assert (raw.get_alpha(), line.get_alpha()) == (0.25, None)
    assert raw.get_xdata().tolist() == [1000.0 * step for step in range(1, 11)]
    assert figure.axes[1].lines[1].get_ydata().tolist() == [4.5, 4.25]
    assert figure.axes[2].get_ylim()[0] == figure.axes[3].get_ylim()[0] == 0
    assert figure.axes[0].lines[0].get_color() == figure.axes[3].lines[0].get_color()


def test_a_long_curve_keeps_its_spikes(tmp_path: Path, long: History) -> None:
    losses = dict.fromkeys(range(1, 5001), 1.0) | {2503: 50.0}
    record_launch(tmp_path / "x", "0001", 0, losses)
    figure = draw_comparison([read_history(tmp_path / "x")], ["a"], LOSSES[:1], "steps", None)
    raw, line = figure.axes[0].lines
    assert len(raw.get_xdata()) < 2100
    assert max(raw.get_ydata()) == 50.0
    assert max(line.get_ydata()) == pytest.approx(1 + 49 / 101)


def test_smoothing_is_a_mean_of_neighbours() -> None:
    assert smoothed(np.array([1.0, 2.0, 3.0, 8.0]), 2).tolist() == [1.5, 2.0, pytest.approx(13 / 3), 5.5]
    assert smoothed(np.array([1.0, 2.0]), 0).tolist() == [1.0, 2.0]


def test_what_is_not_finite_is_left_out_of_curves(tmp_path: Path) -> None:
    record_launch(tmp_path, "0001", 0, {1: 4.0, 2: math.inf, 3: math.nan, 4: 2.0})
    where, values = curve_of(read_history(tmp_path), LOSSES[0], "steps", None)
    assert (where.tolist(), values.tolist()) == ([1.0, 4.0], [4.0, 2.0])


def test_the_text_plot(tmp_path: Path) -> None:
    """Two runs that part at half their way."""
    first = {step: 9.0 - 0.2 * step for step in range(1, 41)}
    second = {step: first[step] if step < 20 else 5.2 for step in first}
    for name, losses in (("a", first), ("b", second)):
        record_launch(tmp_path / name, "0001", 0, losses)
    found = [read_history(tmp_path / name) for name in ("a", "b")]
    assert text_curves(found, ["a", "b"], LOSSES[0], "steps", None, 46, height=8) == [
        "training loss over steps; values outside the range are left out",
        "8    **** *",
        "7          *****",
        "6               *****",
        "5                    ** ***bbbbbbbbbbb bbbbbbb",
        "4                          aaaaa",
        "3                               aaaaa",
        "2                                    a aaaa",
        "1                                          aaa",
        "  0                                         40",
    ]
    assert text_curves([read_history(None)], ["a"], LOSSES[0], "steps", None, 46) == []
