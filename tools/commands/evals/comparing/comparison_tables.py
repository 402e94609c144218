"""What `tools/evals compare` prints and writes."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from megatron_patches.sizes import counted
from tools.commands.evals.comparing.comparison import Judged, Row
from tools.evaluation_views.evaluated_step import EvaluatedStep
from tools.evaluation_views.table import number

_SMALLEST_P = 0.001


def titles(first: EvaluatedStep, second: EvaluatedStep) -> list[str]:
    """Which checkpoints A and B are."""
    sides = (("A", first), ("B", second))
    return [
        f"{letter}: {side.name}{'' if side.tokens is None else f' ({side.tokens:,} tokens)'}" for letter, side in sides
    ]


def table(judged: Sequence[Judged]) -> tuple[list[str], list[list[str]], range]:
    """Head, rows, and the columns that are numbers. What matters least comes last, and may stand beneath its row."""
    several = len(judged) > 1
    level = f"{100 * (1 - judged[0].row.alpha):g} % interval"
    head = ["task", "A", "B", "B - A", level, "p", *(["Holm"] if several else []), "verdict", "test"]
    lines = []
    for each in judged:
        row, found = each.row, each.row.comparison
        values = [number(row.first), number(row.second), number(found.difference)]
        adjusted = [p_value(each.adjusted)] if several else []
        interval = f"{number(found.low)} to {number(found.high)}"
        name = f"{row.label}.{row.metric}"
        lines.append([name, *values, interval, p_value(found.p), *adjusted, verdict(each), test(row)])
    return head, lines, range(1, 6 + several)


def legend(judged: Sequence[Judged]) -> list[str]:
    """What the columns mean, and notes of single tasks."""
    lines = ["p: how often as much would be seen where neither is better; intervals are those of one task alone"]
    if len(judged) > 1:
        lines.append(f"Holm: p adjusted for {counted(len(judged), 'task')} at once; the verdict goes by it")
    return [*lines, *(note for each in judged for note in each.row.notes)]


def verdict(judged: Judged) -> str:
    """In words."""
    row = judged.row
    if judged.better:
        return f"{judged.better} is better"
    reasons = []
    if row.comparison.standard_error == 0 and row.comparison.difference == 0:
        reasons.append("the same on every item")
    if judged.seen is None and (row.comparison.test in ("mcnemar", "clusters") or row.comparison.difference):
        reasons.append(f"too few {'clusters' if row.clusters else 'items'}")
    if judged.seen is not None:
        reasons.append(f"one of {number(judged.seen)} would be seen 4 times in 5")
    return f"no difference shown ({'; '.join(reasons)})"


def test(row: Row) -> str:
    """Name of the test, and what it was given."""
    items = f"{row.items:,} items"
    return {
        "mcnemar": f"mid-p McNemar, {items} paired",
        "t": f"t, {items} paired",
        "clusters": f"sign flips of {row.clusters} clusters, {items} paired",
        "unpaired": f"z of standard errors, {items}, not paired",
    }[row.comparison.test]


def p_value(p: float) -> str:
    """Three places."""
    return f"<{_SMALLEST_P}" if p < _SMALLEST_P else f"{p:.3f}"


def as_json(first: EvaluatedStep, second: EvaluatedStep, judged: Sequence[Judged]) -> dict[str, Any]:
    """For other programs."""
    sides = [
        {"name": side.name, "run": side.run.name, "step": side.evaluation.step, "tokens": side.tokens}
        for side in (first, second)
    ]
    tasks = [_record(each) | {"verdict": verdict(each), "notes": list(each.row.notes)} for each in judged]
    return {"first": sides[0], "second": sides[1], "alpha": judged[0].row.alpha, "tasks": tasks}


def as_csv(first: EvaluatedStep, second: EvaluatedStep, judged: Sequence[Judged]) -> str:
    """The text of a file: a row a task."""
    records = [{"first_checkpoint": first.name, "second_checkpoint": second.name, **_record(each)} for each in judged]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _record(judged: Judged) -> dict[str, Any]:
    row, found = judged.row, judged.row.comparison
    return {
        "label": row.label,
        "metric": row.metric,
        "higher_is_better": row.higher_is_better,
        "items": row.items,
        "clusters": row.clusters,
        "test": found.test,
        "first": row.first,
        "second": row.second,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "standard_error": found.standard_error,
        "p": found.p,
        "adjusted_p": judged.adjusted,
        "difference_seen": judged.seen,
        "better": judged.better,
    }
