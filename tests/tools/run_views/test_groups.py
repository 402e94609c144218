"""Runs with several validation groups, wherever their losses are shown."""

import csv
import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.events.writing import EventWriter
from tests.small_artefacts import RUN, make_checkpoint
from tests.tools.recorded_runs import record_launch
from tools.loss_curve import draw_picture, read_curve, text_plot
from tools.run_views.comparison import METRICS, compare_histories
from tools.run_views.comparison_csv import as_csv
from tools.run_views.history import read_history
from tools.run_views.recorded_data import read_recorded_data
from tools.run_views.views import Inventory

FOUND = [(2, "training", 5.0), (2, "code", 2.0), (4, "training", 4.0), (4, "code", 3.0)]


def record_data(events: Path, launch: str, best_by: object, **facts: object) -> None:
    writer = EventWriter(events, launch, "trainer")
    writer.write("data", step=0, best_by=best_by, **facts)
    writer.close()


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Four steps, validated twice on a group named training, by which the best goes, and on one named code."""
    folder = tmp_path / "runs" / RUN / "events"
    record_launch(folder, "0001", 0, {step: 9.0 - step for step in range(1, 5)}, FOUND)
    record_data(folder, "0001", "training")
    return folder


def best_of(events: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """Name, group, value and step of the best of the run."""
    runs = events.parents[1]
    monkeypatch.setenv("TRAINYARD_CACHE", str(runs.parent / "cache"))
    with open_catalogue(runs, runs.parent / "data") as catalogue:
        problems: list[str] = []
        found = Inventory(runs.parent, runs, catalogue).best(RunFolder(events.parent), problems)
    assert found is not None and problems == []
    return found.name, found.group, found.value, found.step


def of_groups(best_by: str, losses: Mapping[str, float]) -> dict[str, Any]:
    return {"best_by": best_by, "validation_losses": dict(losses), "validation_loss": losses[best_by]}


def test_the_best_of_a_run_is_of_the_group_that_its_newest_launch_goes_by(
    events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that went by another group is compared by the same one."""
    make_checkpoint(events.parents[1], 2, **of_groups("code", {"training": 5.0, "code": 2.0}))
    make_checkpoint(events.parents[1], 3, validation_loss=0.5)
    assert best_of(events, monkeypatch) == ("validation_loss", "training", 4.0, 4)
    record_data(events, "0002", "code")
    assert best_of(events, monkeypatch) == ("validation_loss", "code", 2.0, 2)


def test_without_events_the_newest_checkpoint_says_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tmp_path / "runs" / RUN / "events"
    losses = {"training": 5.0, "code": 2.0}
    make_checkpoint(tmp_path / "runs", 1, **of_groups("code", losses))
    make_checkpoint(tmp_path / "runs", 2, **of_groups("training", {name: loss - 1 for name, loss in losses.items()}))
    assert best_of(events, monkeypatch) == ("validation_loss", "training", 4.0, 2)


def test_runs_are_compared_by_the_group_that_the_first_one_goes_by(events: Path) -> None:
    record_data(events, "0002", "code")
    history = read_history(events)
    assert (list(history.validations), history.main_source) == (["code", "training"], "code")
    metrics = [metric for metric in METRICS if metric.name == "validation_loss"]
    found = compare_histories([history], metrics)
    assert (found.source, found.other_sources, found.reached[0].best_validation.value) == ("code", ["training"], 2.0)
    other = compare_histories([history], metrics, source="training")
    assert other.reached[0].best_validation.value == 4.0


def test_no_group_takes_the_column_of_a_measure(events: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([read_history(events)], ["run"]))))
    assert [(row["training_loss"], row["validation_loss.training"], row["validation_loss.code"]) for row in rows] == [
        ("8.0", "", ""), ("7.0", "5.0", "2.0"), ("6.0", "", ""), ("5.0", "4.0", "3.0"),
    ]  # fmt: skip


def test_a_curve_has_every_group(events: Path, tmp_path: Path) -> None:
    record_data(events, "0002", "code")
    curve = read_curve("run", events)
    assert curve.group == "code" and curve.validation == [(2, 2.0), (4, 3.0)]
    assert curve.others == {"training": [(2, 5.0), (4, 4.0)]}
    assert text_plot(curve, entropy=1.0, width=4, height=8).splitlines() == [
        "  8.00 .", "  7.00  .", "  6.00   .", "  5.00  a .", "  4.00    a", "  3.00    o", "  2.00  o", "  1.00 ----",
        "  step 1  4", "  nats per token: . training  o validation on code  | stop  - entropy of single tokens",
        "  validation on further groups: a training",
    ]  # fmt: skip
    draw_picture(curve, 1.0, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_a_curve_of_very_many_groups_can_be_read(tmp_path: Path) -> None:
    """The curves keep their room beside the legend, which counts what it does not name; a sign stays at its name."""
    names = [f"group-{number:03d}" for number in range(200)]
    record_launch(tmp_path, "0001", 0, {1: 5.0, 2: 4.0}, [(2, name, 3.0) for name in names])
    curve = read_curve("run", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as of a layout that could not be kept
        draw_picture(curve, 1.0, tmp_path / "loss.png")
    told = text_plot(curve, entropy=1.0)
    assert told.endswith("y group-024  z group-025  and 174 more")
    assert not re.search(r" [a-z]$", told.partition("further groups:")[2], re.MULTILINE), "a sign without its name"


def test_what_a_launch_read_is_told_in_two_lines(tmp_path: Path) -> None:
    sources = [
        {"name": "en", "weight": 0.75, "datasets": {"count": 3}},
        {"name": "code", "weight": 0.25, "datasets": {"count": 1}},
    ]
    groups = [{"name": f"g{number}"} for number in range(14)]
    record_data(tmp_path, "0001", "g1", sources=[], validation=[])
    record_data(tmp_path, "0002", "g1", sources=sources, validation=groups, further_groups=2)
    problems: list[str] = []
    found = read_recorded_data(tmp_path, problems)
    assert found is not None and problems == []
    assert list(found.describe()) == [
        ("data read", "2 sources of 4 datasets, recorded by launch 0002 after step 0: en 75.0%, code 25.0%"),
        ("validated on", f"{', '.join(f'g{number}' for number in range(12))}, and 4 more; the best checkpoint by g1"),
    ]


@pytest.mark.parametrize("odd", [None, 3, "text", [1], [{"name": None, "weight": "x"}], {"name": "en"}])
def test_an_odd_record_stops_no_view(tmp_path: Path, odd: object, monkeypatch: pytest.MonkeyPatch) -> None:
    record_data(tmp_path, "0001", odd, sources=odd, validation=odd, further_sources=odd)
    found = read_recorded_data(tmp_path, [])
    assert found is not None and next(found.describe())[0] == "data read"
    assert read_history(tmp_path).main_source is None
