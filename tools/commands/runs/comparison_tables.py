"""What `tools/runs compare` prints: how far runs are, their losses, their values at one point, differing settings."""

import math
import os.path
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.sizes import counted, short
from tools.commands.runs.compare import differing
from tools.commands.runs.compared_runs import ComparedRun
from tools.run_views.comparison import METRICS, Comparison, Measurement, Metric, Point
from tools.run_views.history import History

Table = tuple[list[str], list[list[str]]]
"""head and rows"""
NOTHING = "-"
_SOURCES_TOLD = 8
"""further validation groups that are named"""
_LONGEST = 40
"""characters of a setting; --json has all of it"""
_SHORTEST = 8
_OTHER_TEXTS = ("data.", "evaluation.", "objective.")
"""settings by which losses are of other texts, or of another question"""


def run_table(runs: Sequence[ComparedRun]) -> Table:
    """Which letter means which run, and what it is doing."""
    states = [str(run.state) if run.state else "settings of a YAML" for run in runs]
    rows = [[run.letter, run.name, state] for run, state in zip(runs, states, strict=True)]
    if all(run.name == run.label for run in runs):
        return ["", "run", "state"], rows
    return ["", "run", "state", "where"], [
        [*row, run.label if run.label != run.name else ""] for row, run in zip(rows, runs, strict=True)
    ]


def course_table(runs: Sequence[ComparedRun], comparison: Comparison) -> Table:
    """How far each run is, and how fast."""
    rows = []
    for run, found in zip(runs, comparison.reached, strict=True):
        planned = f"{run.planned:,}" if run.planned is not None else "?"
        rows.append([
            _name(run),
            f"{found.steps:,}/{planned}" if found.steps is not None else f"{NOTHING}/{planned}",
            short(found.tokens) if found.tokens is not None else NOTHING,
            _digits(found.hours),
            _digits(found.seconds_per_step),
            short(round(found.tokens_per_second)) if found.tokens_per_second is not None else NOTHING,
            _digits(found.learning_rate),
        ])  # fmt: skip
    return ["run", "steps", "tokens", "hours", "s/step", "tok/s", "lr"], rows


def loss_table(runs: Sequence[ComparedRun], comparison: Comparison) -> Table:
    """The losses that each run has reached by itself."""
    head = ["run", "training", "best val.", "at step", "last val.", "at step"]
    odd = any(found.not_finite for found in comparison.reached)
    rows = []
    for run, found in zip(runs, comparison.reached, strict=True):
        best, last = found.best_validation, found.last_validation
        row = [_name(run), _loss(found.training_loss), _loss(best.value), _step(best), _loss(last.value), _step(last)]
        rows.append([*row, f"{found.not_finite:,}"] if odd else row)
    return [*head, "not finite"] if odd else head, rows


def loss_legend(comparison: Comparison) -> list[str]:
    """What the numbers of `loss_table` are."""
    averaged = [found.averaged for found in comparison.reached if found.steps is not None]
    fewer = " (of all, where there are fewer)" if any(each < comparison.window for each in averaged) else ""
    lines = [f"training: mean loss of the last {counted(comparison.window, 'step')}{fewer}"]
    return lines + ([f"val.: loss on the validation group {printable(comparison.source)}"] if comparison.source else [])


def point_title(runs: Sequence[ComparedRun], comparison: Comparison) -> str:
    """At which point the values of `point_table` are taken."""
    point = comparison.point
    if point is None:
        return ""
    where = _place(point, point.at)
    if point.limited_by is not None:
        return f"At {where}, where {runs[point.limited_by].letter} is; all others have come at least so far"
    return f"At {where}"


def point_table(runs: Sequence[ComparedRun], comparison: Comparison, metrics: Sequence[Metric]) -> Table:
    """The values of all runs at one point, and how they differ from the first run's."""
    head, rows = ["run"], [[_name(run)] for run in runs]
    for metric in metrics:
        values = comparison.values[metric.name]
        head += [metric.name.replace("_", " "), f"to {runs[0].letter}"]
        shared = metric.column is not None or (comparison.point is not None and comparison.point.validation_at)
        for row, value in zip(rows, values, strict=True):
            place = "" if shared or value.step is None else f" @{value.step}"
            row += [f"{_of_metric(metric, value.value)}{place}", _difference(metric, value)]
    if len(runs) == 1:  # there is nothing to differ from
        return [head[0], *head[1::2]], [[row[0], *row[1::2]] for row in rows]
    return head, rows


def point_legend(runs: Sequence[ComparedRun], comparison: Comparison, metrics: Sequence[Metric]) -> list[str]:
    """What the numbers of `point_table` are, and what they do not say."""
    point = comparison.point
    assert point is not None
    names = {metric.name for metric in metrics}
    lines = []
    if "training_loss" in names:
        lines.append(f"training loss: mean of the last {counted(comparison.window, 'step')} until there, or of all")
    if "validation_loss" in names and comparison.source:
        at = point.validation_at
        where = "the last of each run, at unequal points: no difference" if at is None else f"at {_place(point, at)}"
        others = [printable(each) for each in comparison.other_sources]
        more = f", and {len(others) - _SOURCES_TOLD} more" if len(others) > _SOURCES_TOLD else ""
        also = f"; --group compares another: {', '.join(others[:_SOURCES_TOLD])}{more}" if others else ""
        lines.append(f"validation loss: on the group {printable(comparison.source)}, {where}{also}")
    values = next(iter(comparison.values.values()))
    trained = [found.steps is not None for found in comparison.reached]
    if short_of := [runs[place].letter for place, found in enumerate(values) if found.value is None and trained[place]]:
        lines.append(f"{NOTHING}: {', '.join(short_of)} did not come so far, or recorded nothing")
    return lines + _cautions(runs, comparison)


def _place(point: Point, at: int) -> str:
    return f"step {at:,}" if point.axis == "steps" else f"{at:,} tokens"


def _cautions(runs: Sequence[ComparedRun], comparison: Comparison) -> list[str]:
    trained = [run for run, found in zip(runs, comparison.reached, strict=True) if found.steps is not None]
    known = [run for run in trained if run.settings is not None]
    if len(trained) < 2:
        return []
    rows = differing([run.settings for run in known if run.settings is not None])
    lines = []
    if any(key == "training.seed" for key, _ in rows):
        lines.append("seeds differ: a part of each difference is chance")
    else:
        lines.append("one run of each: how much another seed would change is not known")
    others = [key for key, _ in rows if key.startswith(_OTHER_TEXTS) and not key.endswith("every_steps")]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        lines.append(f"{', '.join(others[:3])}{more} differ: losses may be of other texts")
    return lines


def settings_tables(runs: Sequence[ComparedRun], width: int | None) -> list[Table]:
    """The settings that differ, a key a row and a run a column; for more runs than a terminal is wide several tables.

    Args:
        width: of the terminal, in characters; None where lines may have any length.
    """
    known = [run for run in runs if run.settings is not None]
    rows = differing([run.settings for run in known if run.settings is not None])
    if not rows:
        return []
    keys = max(len(key) for key, _ in rows)
    longest = _LONGEST if width is None else min(_LONGEST, max(_SHORTEST, (width - keys) // len(known) - 2))
    columns = list(zip(*(_cells(values, longest) for _, values in rows), strict=True))
    blocks: list[list[int]] = [[]]
    taken = keys
    for place, column in enumerate(columns):
        wanted = 2 + max(map(len, column))
        if width is not None and blocks[-1] and taken + wanted > width:
            blocks.append([])
            taken = keys
        blocks[-1].append(place)
        taken += wanted
    return [
        (
            ["setting", *(known[place].letter for place in block)],
            [[key, *(columns[place][row] for place in block)] for row, (key, _) in enumerate(rows)],
        )
        for block in blocks
    ]


def _cells(values: Sequence[str | None], longest: int) -> list[str]:
    """Values that are too long lose what they begin with in common, then their middle."""
    texts = [printable(value) for value in values if value is not None]
    common = len(os.path.commonprefix(texts))  # noqa: RUF071 - characters are meant
    cells = []
    for value in values:
        text = NOTHING if value is None else printable(value)
        if value is not None and len(text) > longest:
            text = f"...{text[common:]}" if common > 3 else text
        if len(text) > longest:
            half = (longest - 3) // 2
            text = f"{text[: longest - 3 - half]}...{text[-half:]}"
        cells.append(text)
    return cells


def as_json(
    runs: Sequence[ComparedRun], histories: Sequence[History], comparison: Comparison, problems: list[str]
) -> dict[str, Any]:
    """All of it for other programs, values at their full length."""
    known = [run for run in runs if run.settings is not None]
    rows = differing([run.settings for run in known if run.settings is not None])
    return {
        "runs": [
            {
                "letter": run.letter,
                "name": run.name,
                "folder": str(run.folder.path) if run.folder else None,
                "state": run.state.word if run.state else None,
                "planned_steps": run.planned,
                "validation_sources": list(history.validations),
                **asdict(found),
            }
            for run, history, found in zip(runs, histories, comparison.reached, strict=True)
        ],
        "validation_source": comparison.source,
        "window": comparison.window,
        "point": asdict(comparison.point) if comparison.point else None,
        "values": {
            name: {run.letter: asdict(value) for run, value in zip(runs, values, strict=True)}
            for name, values in comparison.values.items()
        },
        "differences": [
            {"key": key, "values": {run.letter: value for run, value in zip(known, values, strict=True)}}
            for key, values in rows
        ],
        "problems": problems,
    }


def chosen_metrics(names: Sequence[str], default: Sequence[str]) -> list[Metric]:
    """The metrics of these names, in the order in which they were asked for.

    Raises:
        TrainyardError: there is no such metric.
    """
    by_name = {metric.name: metric for metric in METRICS}
    if unknown := next((name for name in names if name not in by_name), None):
        raise TrainyardError(f"--metric {shortened(unknown)} is not known; there are {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(names or default)]


def _name(run: ComparedRun) -> str:
    return f"{run.letter} {run.name}"


def _step(found: Measurement) -> str:
    return NOTHING if found.step is None else f"{found.step:,}"


def _loss(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _digits(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"


def _of_metric(metric: Metric, value: float | None) -> str:
    return _loss(value) if metric.unit == "nats per target" else NOTHING if value is None else f"{value:.4g}"


def _difference(metric: Metric, found: Measurement) -> str:
    if found.difference is None or math.isnan(found.difference):
        return ""
    return f"{found.difference:+.4f}" if metric.unit == "nats per target" else f"{found.difference:+.3g}"
