"""What `tools/evals plan` prints: the smallest difference that would be seen, by the number of items."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megatron_patches.evaluation.statistics.power import (
    Demands,
    items_needed,
    items_needed_in_clusters,
    smallest_difference,
    smallest_difference_in_clusters,
)
from tools.commands.evals.comparing.planned_tasks import PlannedTask

_SOME = (100, 300, 1000)
"""numbers of items beside all of them"""
_NEVER = "-"


@dataclass(frozen=True)
class PlanLine:
    """A number of items, and what it shows."""

    items: int
    smallest: tuple[float | None, ...]
    """for each share of discordant items; None where no difference would be seen"""
    seconds: float | None


def plan_lines(task: PlannedTask, demands: Demands) -> list[PlanLine]:
    """The task with some of its items, and with all."""
    least = 1 if task.sizes is None else len(task.sizes)
    numbers = [*(number for number in _SOME if least <= number < task.items), task.items]
    return [
        PlanLine(
            number,
            tuple(_smallest(task, number, share, demands) for share in task.discordant),
            None if task.seconds is None else task.seconds * number / task.items,
        )
        for number in numbers
    ]


def _smallest(task: PlannedTask, items: int, discordant: float, demands: Demands) -> float | None:
    if task.sizes is None:
        return smallest_difference(items, discordant, demands)
    sizes = task.sizes * (items / task.items)
    return smallest_difference_in_clusters(sizes, discordant, task.correlation, demands)


def needed(task: PlannedTask, difference: float, demands: Demands) -> list[int | None]:
    """Items with which a difference would be seen, for each share of discordant items."""
    if task.sizes is None:
        return [items_needed(share, difference, demands) for share in task.discordant]
    return [
        items_needed_in_clusters(task.sizes, share, task.correlation, difference, demands) for share in task.discordant
    ]


def table(tasks: Sequence[PlannedTask], demands: Demands) -> tuple[list[str], list[list[str]], set[int]]:
    """Head, rows, and the columns that are numbers."""
    timed = any(task.seconds is not None for task in tasks)
    head = ["task", "items", "clusters", "smallest difference seen", *(["seconds"] if timed else [])]
    rows = []
    for task in tasks:
        clusters = "" if task.sizes is None else str(len(task.sizes))
        for line in plan_lines(task, demands):
            seconds = [] if line.seconds is None else [f"{line.seconds:,.0f}"]
            smallest = " / ".join(_NEVER if each is None else f"{each:.4f}" for each in line.smallest)
            rows.append([task.name, f"{line.items:,}", clusters, smallest, *seconds])
    return head, rows, {1, 2, *([4] if timed else [])}


def needed_table(
    tasks: Sequence[PlannedTask], difference: float, demands: Demands
) -> tuple[list[str], list[list[str]]]:
    """Items that a difference needs."""
    rows = [
        [task.name, " / ".join(_NEVER if each is None else f"{each:,}" for each in needed(task, difference, demands))]
        for task in tasks
    ]
    return ["task", f"items that show a difference of {difference:g}"], rows


def legend(tasks: Sequence[PlannedTask], difference: float | None, demands: Demands) -> list[str]:
    """What the numbers rest on."""
    at_once = f", {demands.tasks} tasks at once (Holm)" if demands.tasks > 1 else ""
    lines = [f"seen with a chance of {100 * demands.power:g} %, at alpha {demands.alpha:g} two-sided{at_once}, paired"]
    lines.append("discordant: the share of items on which one of the two models alone is right")
    if any(None in line.smallest for task in tasks for line in plan_lines(task, demands)):
        lines.append(f"{_NEVER}: these are too few items to show any difference")
    if difference is not None and any(None in needed(task, difference, demands) for task in tasks):
        lines.append(f"{_NEVER}: no number of items shows this difference")
    for task in tasks:
        lines += [f"{task.name}: {source}" for source in task.sources]
    return lines


def as_json(tasks: Sequence[PlannedTask], difference: float | None, demands: Demands) -> dict[str, Any]:
    """For other programs."""
    told = []
    for task in tasks:
        record: dict[str, Any] = {
            "task": task.name,
            "discordant": list(task.discordant),
            "clusters": None if task.sizes is None else len(task.sizes),
            "correlation": None if task.sizes is None else task.correlation,
            "sources": list(task.sources),
            "plan": [
                {"items": line.items, "smallest_difference": list(line.smallest), "seconds": line.seconds}
                for line in plan_lines(task, demands)
            ],
        }
        if difference is not None:
            record["items_needed"] = needed(task, difference, demands)
        told.append(record)
    return {
        "power": demands.power,
        "alpha": demands.alpha,
        "tasks_at_once": demands.tasks,
        "difference": difference,
        "tasks": told,
    }
