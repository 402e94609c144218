"""Tasks that two checkpoints share, compared item by item."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from megatron_patches.artefacts.evaluations.result import Item, Metric, TaskResult
from megatron_patches.artefacts.evaluations.shelf import Evaluation, items_of
from megatron_patches.errors import Missing, Refused, listed
from megatron_patches.evaluation.statistics.clusters import LEAST_CLUSTERS, in_clusters
from megatron_patches.evaluation.statistics.comparison import Comparison
from megatron_patches.evaluation.statistics.holm import holm
from megatron_patches.evaluation.statistics.mcnemar import compare_accuracies
from megatron_patches.evaluation.statistics.means import compare_numbers, compare_unpaired
from megatron_patches.evaluation.statistics.power import Demands, difference_seen
from megatron_patches.evaluation.statistics.sign_flips import compare_clusters
from megatron_patches.foreign.printable import printable, shortened
from tools.commands.evals.compared_metric import primary_metric

_SAME = 1e-6
"""a task's number and the mean of its items differ by rounding alone"""


@dataclass(frozen=True)
class Choices:
    """What a command line asks for."""

    tasks: Sequence[str] = ()
    """labels; empty means all that both have"""
    metric: str | None = None
    items: bool = False
    """treat items of one cluster as independent"""
    unpaired: bool = False
    """go by standard errors where items cannot be paired"""
    alpha: float = 0.05


@dataclass(frozen=True)
class Row:
    """A task's comparison: A is the first side, B the second."""

    label: str
    metric: str
    higher_is_better: bool
    items: int
    clusters: int | None
    """None where the items were taken as independent"""
    first: float
    second: float
    comparison: Comparison
    adjusted: float
    """p value after Holm"""
    seen: float
    """a difference that would be seen with a chance of 80 %, all tasks considered"""
    alpha: float
    notes: tuple[str, ...] = ()

    @property
    def better(self) -> str | None:
        """A or B; None where no difference is shown."""
        if self.adjusted > self.alpha:
            return None
        return "B" if (self.comparison.difference > 0) == self.higher_is_better else "A"


def compare_evaluations(first: Evaluation, second: Evaluation, choices: Choices) -> list[Row]:
    """Compares all tasks that are asked for, in the order of their labels.

    Raises:
        Refused: a task cannot be compared; all such are told, each with the remedy.
        Damaged: the items of a result cannot be read.
    """
    _refuse_the_same(first, second)
    rows, problems = [], []
    for label in _labels(first, second, choices.tasks):
        try:
            rows.append(_compare_task(first, second, label, choices))
        except (Refused, Missing) as error:
            problems.append(f"{label}: {error}")
    if problems:
        raise Refused(listed(problems))
    adjusted = holm([row.comparison.p for row in rows])
    demands = Demands(alpha=choices.alpha, tasks=len(rows))
    return [
        replace(
            row,
            adjusted=float(p),
            seen=difference_seen(row.comparison.standard_error, row.comparison.degrees, demands),
        )
        for row, p in zip(rows, adjusted, strict=True)
    ]


def _refuse_the_same(first: Evaluation, second: Evaluation) -> None:
    checkpoints = [{result.checkpoint for result in each.results.values()} for each in (first, second)]
    if first.folder.resolve() == second.folder.resolve() or checkpoints[0] == checkpoints[1]:
        raise Refused(
            f"{printable(first.folder)} and {printable(second.folder)} are evaluations of the same checkpoint; name two"
        )


def _labels(first: Evaluation, second: Evaluation, asked: Sequence[str]) -> list[str]:
    """Labels to compare."""
    shared = sorted(first.results.keys() & second.results.keys())
    has = f"A has {', '.join(sorted(first.results))}; B has {', '.join(sorted(second.results))}"
    if not asked and not shared:
        raise Refused(f"the two have no task in common: {has}. Evaluate both on one, with the same settings")
    if lacking := [label for label in asked if label not in shared]:
        raise Refused(f"not both were evaluated on {', '.join(map(shortened, lacking))}: {has}")
    return sorted(set(asked)) if asked else shared


def _compare_task(first: Evaluation, second: Evaluation, label: str, choices: Choices) -> Row:
    results = first.results[label], second.results[label]
    if results[0].definition != results[1].definition:
        raise Refused(
            f"{_what_differs(*results)}; evaluate one of them again as the other was, or leave it out: --tasks"
        )
    try:
        pairs = paired_items(*(_items(each.folder, label, result) for each, result in zip((first, second), results)))
    except (Refused, Missing):
        if not choices.unpaired:
            raise
        return _compare_without_pairs(*results, label, choices)
    metric = _metric(results, pairs, choices.metric)
    numbers = [[each.metrics[metric] for each in side] for side in pairs]
    names = None if choices.items else cluster_names(pairs[0])
    comparison = _tested(numbers, names, choices.alpha)
    known = results[0].metrics[metric]
    means = [sum(side) / len(side) for side in numbers]
    return Row(
        label, metric, known.higher_is_better, len(numbers[0]), len(set(names)) if names else None, *means, comparison,
        comparison.p, 0.0, choices.alpha, tuple(_notes(results, metric, means)),
    )  # fmt: skip


def _items(folder: Path, label: str, result: TaskResult) -> list[Item]:
    try:
        found = items_of(folder, label)
    except Missing:
        found = []
    if not found:
        raise Missing(
            f"the items of {printable(result.run)}@{result.step} were not kept, so that they cannot be paired; evaluate "
            "again, or compare by standard errors alone: --unpaired"
        )
    return found


def paired_items(first: list[Item], second: list[Item]) -> tuple[list[Item], list[Item]]:
    """The items of both sides in one order. Of items that are there several times the first belongs to the first.

    Raises:
        Refused: they are not the same ones.
    """
    sides = [_numbered(first), _numbered(second)]
    if sides[0].keys() != sides[1].keys():
        both = len(sides[0].keys() & sides[1].keys())
        raise Refused(
            f"the items are not the same ({both:,} of {len(first):,} and {len(second):,}), so that they cannot be "
            "paired; evaluate both on the same ones, or compare by standard errors alone: --unpaired"
        )
    return first, [sides[1][key] for key in sides[0]]


def _numbered(items: list[Item]) -> dict[tuple[str, int], Item]:
    seen: Counter[str] = Counter()
    found = {}
    for item in items:
        found[item.id, seen[item.id]] = item
        seen[item.id] += 1
    return found


def cluster_names(items: Sequence[Item]) -> list[str] | None:
    """Each item's cluster; None where they have none, or are all in one: then they are independent."""
    if all(item.cluster is None for item in items):
        return None
    names = [f"/{number}" if item.cluster is None else item.cluster for number, item in enumerate(items)]
    return names if 1 < len(set(names)) < len(names) else None


def _metric(results: tuple[TaskResult, TaskResult], pairs: tuple[list[Item], list[Item]], asked: str | None) -> str:
    kept = set.intersection(*(set(item.metrics) for side in pairs for item in side))
    shared = {name: metric for name, metric in results[0].metrics.items() if name in results[1].metrics}
    if asked is None:
        if found := primary_metric(shared, kept):
            return found
        raise Refused("its items keep no metric of it; evaluate again, or compare by standard errors alone: --unpaired")
    if asked not in kept or asked not in shared:
        raise Refused(f"its items keep no {shortened(asked)}: --metric {' or '.join(sorted(kept & shared.keys()))}")
    return asked


def _tested(numbers: Sequence[Sequence[float]], names: list[str] | None, alpha: float) -> Comparison:
    """The test that the numbers and their clusters call for."""
    first, second = numbers
    if names is not None and first != second:
        if len(set(names)) < LEAST_CLUSTERS:
            raise Refused(
                f"its items are in {len(set(names))} clusters, which are too few to tell how clusters differ "
                f"(at least {LEAST_CLUSTERS}); --items takes the items as independent: what it shows is then true of "
                "these clusters alone"
            )
        return compare_clusters(in_clusters([b - a for a, b in zip(first, second, strict=True)], names), alpha)
    if set(first) | set(second) <= {0.0, 1.0}:
        return compare_accuracies(first, second, alpha)
    if len(first) < 2:
        raise Refused("it has one item, which tells nothing of others")
    return compare_numbers(first, second, alpha)


def _compare_without_pairs(first: TaskResult, second: TaskResult, label: str, choices: Choices) -> Row:
    known = {
        name: metric
        for name, metric in first.metrics.items()
        if name in second.metrics and None not in (metric.standard_error, second.metrics[name].standard_error)
    }
    name = choices.metric or primary_metric(known, known)
    if name not in known:
        raise Refused(
            f"no standard error of {shortened(name or 'a metric')} is known; evaluate both again, keeping items"
        )
    one, other = first.metrics[name], second.metrics[name]
    comparison = compare_unpaired(one.value, _error(one), other.value, _error(other), choices.alpha)
    note = f"{label}: not paired; on the same items this sees far less than a paired comparison"
    notes = (note, *_notes((first, second), name, None))
    return Row(
        label, name, one.higher_is_better, min(first.examples, second.examples), None, one.value, other.value, comparison,
        comparison.p, 0.0, choices.alpha, notes,
    )  # fmt: skip


def _error(metric: Metric) -> float:
    assert metric.standard_error is not None
    return metric.standard_error


def _what_differs(first: TaskResult, second: TaskResult) -> str:
    """What keeps two results of one label from being compared."""
    known = [
        (name, getattr(first, name), getattr(second, name)) for name in ("task", "version", "shots", "limit", "length")
    ]
    found = [f"{name} {shortened(one)} and {shortened(other)}" for name, one, other in known if one != other]
    if first.data != second.data:
        names = sorted({shortened(file.name) for file in first.data} | {shortened(file.name) for file in second.data})
        found.append(f"other data ({', '.join(names)})")
    if not found:
        found = [f"other prompts or metrics (definition {first.definition[:12]} and {second.definition[:12]})"]
    return f"the two were not asked the same: {'; '.join(found)}"


def _notes(results: tuple[TaskResult, TaskResult], metric: str, means: Sequence[float] | None) -> list[str]:
    """What a reader should know of a comparison."""
    first, second = results
    found = []
    if first.through != second.through:
        found.append(
            f"{first.label}: A was asked through {_way(first)}, B through {_way(second)}; the two agree within 0.001"
        )
    if first.precision != second.precision:
        found.append(f"{first.label}: A computed in {first.precision}, B in {second.precision}")
    values = [each.metrics[metric].value for each in results]
    if means and any(abs(mean - value) > _SAME * max(1, abs(value)) for mean, value in zip(means, values, strict=True)):
        found.append(
            f"{first.label}: compared are means over items; the task's own {metric} weights them otherwise: "
            f"{values[0]:.4f} and {values[1]:.4f}"
        )
    return found


def _way(result: TaskResult) -> str:
    return "the engine" if result.through == "engine" else "its export"
