"""What `tools/evals compare` prints and writes."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from megatron_patches.sizes import counted
from tools.commands.evals.compared_sides import Side
from tools.commands.evals.comparison import Row

_SMALLEST_P = 0.001
FIELDS = [
    *(
        "label",
        "metric",
        "higher_is_better",
        "items",
        "clusters",
        "test",
        "first",
        "second",
        "difference",
        "low",
        "high",
    ),
    *("standard_error", "p", "adjusted_p", "difference_seen", "better"),
]


def titles(first: Side, second: Side) -> list[str]:
    """Which checkpoints A and B are."""
    sides = (("A", first), ("B", second))
    return [
        f"{letter}: {side.name}{'' if side.tokens is None else f' ({side.tokens:,} tokens)'}" for letter, side in sides
    ]


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], range]:
    """Head, rows, and the columns that are numbers. What matters least comes last: there it may stand beneath its row."""
    several = len(rows) > 1
    level = f"{100 * (1 - rows[0].alpha):g} % interval"
    head = ["task", "A", "B", "B - A", level, "p", *(["Holm"] if several else []), "verdict", "test"]
    lines = [
        [
            f"{row.label}.{row.metric}", number(row.first), number(row.second), number(row.comparison.difference),
            f"{number(row.comparison.low)} to {number(row.comparison.high)}", p_value(row.comparison.p),
            *([p_value(row.adjusted)] if several else []), verdict(row), test(row),
        ]
        for row in rows
    ]  # fmt: skip
    return head, lines, range(1, 6 + several)


def legend(rows: Sequence[Row]) -> list[str]:
    """What the columns mean, and notes of single tasks."""
    lines = ["p: how often as much would be seen where neither is better; intervals are those of one task alone"]
    if len(rows) > 1:
        lines.append(f"Holm: p adjusted for {counted(len(rows), 'task')} at once; the verdict goes by it")
    return [*lines, *(note for row in rows for note in row.notes)]


def verdict(row: Row) -> str:
    """In words."""
    if row.better:
        return f"{row.better} is better"
    if row.comparison.standard_error == 0:
        return "no difference shown: the same on every item"
    return f"no difference shown (one of {number(row.seen)} would be seen 4 times in 5)"


def test(row: Row) -> str:
    """Name of the test, and what it was given."""
    items = f"{row.items:,} items"
    return {
        "mcnemar": f"mid-p McNemar, {items} paired",
        "t": f"t, {items} paired",
        "clusters": f"sign flips of {row.clusters} clusters, {items} paired",
        "unpaired": f"z of standard errors, {items}, not paired",
    }[row.comparison.test]


def number(value: float) -> str:
    """Four places, as the harness prints them; five digits of what is large."""
    return f"{value:.4f}" if abs(value) < 100 or not math.isfinite(value) else f"{value:.5g}"


def p_value(p: float) -> str:
    """Three places."""
    return f"<{_SMALLEST_P}" if p < _SMALLEST_P else f"{p:.3f}"


def as_json(first: Side, second: Side, rows: Sequence[Row]) -> dict[str, Any]:
    """For other programs."""
    sides = [
        {"name": side.name, "run": side.run.name, "step": side.evaluation.step, "tokens": side.tokens}
        for side in (first, second)
    ]
    tasks = [_record(row) | {"verdict": verdict(row), "notes": list(row.notes)} for row in rows]
    return {"first": sides[0], "second": sides[1], "alpha": rows[0].alpha, "tasks": tasks}


def as_csv(first: Side, second: Side, rows: Sequence[Row]) -> str:
    """The text of a file: a row a task."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["first_checkpoint", "second_checkpoint", *FIELDS])
    for row in rows:
        record = _record(row)
        writer.writerow([first.name, second.name, *(record[name] for name in FIELDS)])
    return text.getvalue()


def _record(row: Row) -> dict[str, Any]:
    found = row.comparison
    values = [
        *(row.label, row.metric, row.higher_is_better, row.items, row.clusters, found.test, row.first, row.second),
        *(found.difference, found.low, found.high, found.standard_error, found.p, row.adjusted, row.seen, row.better),
    ]
    return dict(zip(FIELDS, values, strict=True))
