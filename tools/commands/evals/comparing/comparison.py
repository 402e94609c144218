"""Tasks that two checkpoints share, compared item by item."""

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_patches.artefacts.evaluations.definitions import differences
from megatron_patches.artefacts.evaluations.primary_metric import primary_metric
from megatron_patches.artefacts.evaluations.result import Metric, TaskResult
from megatron_patches.artefacts.evaluations.shelf import Evaluation
from megatron_patches.errors import Missing, Refused, listed
from megatron_patches.evaluation.statistics.clusters import LEAST_CLUSTERS, in_clusters
from megatron_patches.evaluation.statistics.comparison import Comparison
from megatron_patches.evaluation.statistics.holm import holm
from megatron_patches.evaluation.statistics.mcnemar import compare_accuracies
from megatron_patches.evaluation.statistics.means import compare_numbers, compare_unpaired
from megatron_patches.evaluation.statistics.power import Demands, accuracies_seen, difference_seen
from megatron_patches.evaluation.statistics.sign_flips import compare_clusters, least_p
from megatron_patches.foreign.printable import printable, shortened
from tools.commands.evals.comparing.compared_items import (
    cluster_names,
    compared_metric,
    kept_items,
    paired_items,
)

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
    alpha: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """The same among the tasks that are compared with it."""

    row: Row
    adjusted: float
    """p value after Holm"""
    seen: float | None
    """a difference that would be seen with a chance of 80 %, for so many tasks; None where none would be"""

    @property
    def better(self) -> str | None:
        """A or B; None where no difference is shown."""
        if self.adjusted > self.row.alpha:
            return None
        return "B" if (self.row.comparison.difference > 0) == self.row.higher_is_better else "A"


def compare_evaluations(first: Evaluation, second: Evaluation, choices: Choices) -> list[Judged]:
    """Compares all tasks that are asked for, in the order of their labels.

    Raises:
        Refused: a task cannot be compared; all such are told, each with the remedy.
        Damaged: the items of a result cannot be read.
    """
    _refuse_the_same(first, second)
    rows, problems = [], []
    for label in _labels(first, second, choices):
        try:
            rows.append(_compare_task(first, second, label, choices))
        except (Refused, Missing) as error:
            problems.append(f"{label}: {error}")
    if problems:
        raise Refused(listed(problems))
    demands = Demands(alpha=choices.alpha, tasks=len(rows))
    adjusted = holm([row.comparison.p for row in rows])
    return [Judged(row, float(p), _seen(row, demands)) for row, p in zip(rows, adjusted, strict=True)]


def _seen(row: Row, demands: Demands) -> float | None:
    found = row.comparison
    if found.test == "mcnemar":
        discordant = row.items * (row.items * found.standard_error**2 + found.difference**2)
        return accuracies_seen(row.items, round(discordant), demands)
    is_blind = row.clusters is not None and least_p(row.clusters) > demands.level
    if is_blind or found.standard_error == 0:
        return None
    return difference_seen(found.standard_error, found.degrees, demands)


def _refuse_the_same(first: Evaluation, second: Evaluation) -> None:
    checkpoints = [{result.checkpoint for result in each.results.values()} for each in (first, second)]
    if first.folder.resolve() == second.folder.resolve() or checkpoints[0] == checkpoints[1]:
        raise Refused(
            f"{printable(first.folder)} and {printable(second.folder)} are evaluations of the same checkpoint; name two"
        )


def left_out(first: Evaluation, second: Evaluation, choices: Choices) -> list[str]:
    """Labels of losses that are not compared since no task is named: they keep no items, and others do."""
    shared = sorted(first.results.keys() & second.results.keys())
    losses = [label for label in shared if "loss" in first.results[label].metrics]
    return [] if choices.tasks or choices.unpaired or losses == shared else losses


def _labels(first: Evaluation, second: Evaluation, choices: Choices) -> list[str]:
    """Labels to compare."""
    asked = choices.tasks
    shared = sorted(first.results.keys() & second.results.keys())
    has = f"A has {', '.join(sorted(first.results))}; B has {', '.join(sorted(second.results))}"
    if not asked and not shared:
        raise Refused(f"the two have no task in common: {has}. Evaluate both on one, with the same settings")
    if lacking := [label for label in asked if label not in shared]:
        raise Refused(f"not both were evaluated on {', '.join(map(shortened, lacking))}: {has}")
    return sorted(set(asked) if asked else set(shared) - set(left_out(first, second, choices)))


def _compare_task(first: Evaluation, second: Evaluation, label: str, choices: Choices) -> Row:
    results = first.results[label], second.results[label]
    if results[0].definition != results[1].definition:
        raise Refused(
            f"the two were not asked the same: {'; '.join(differences(*results))}; evaluate one of them again as the "
            "other was, or leave it out: --tasks"
        )
    try:
        pairs = paired_items(kept_items(first.folder, results[0]), kept_items(second.folder, results[1]))
    except (Refused, Missing):
        if not choices.unpaired:
            raise
        return _compare_without_pairs(*results, label, choices)
    metric = compared_metric(results, pairs, choices.metric)
    numbers = [[each.metrics[metric] for each in side] for side in pairs]
    names = None if choices.items else cluster_names(pairs[0])
    comparison = _tested(numbers, names, choices.alpha)
    known = results[0].metrics[metric]
    means = [sum(side) / len(side) for side in numbers]
    return Row(
        label=label,
        metric=metric,
        higher_is_better=known.higher_is_better,
        items=len(numbers[0]),
        clusters=len(set(names)) if names and comparison.test == "clusters" else None,
        first=means[0],
        second=means[1],
        comparison=comparison,
        alpha=choices.alpha,
        notes=tuple(_notes(results, metric, means)),
    )


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
        raise Refused(
            "it has one item, which tells nothing of others: evaluate both on several, such as a .jsonl file with a "
            "text in each line"
        )
    return compare_numbers(first, second, alpha)


def _compare_without_pairs(first: TaskResult, second: TaskResult, label: str, choices: Choices) -> Row:
    known = {
        name: metric
        for name, metric in first.metrics.items()
        if name in second.metrics and None not in (metric.standard_error, second.metrics[name].standard_error)
    }
    name = choices.metric or primary_metric(known)
    if name not in known:
        raise Refused(
            f"no standard error of {shortened(name or 'a metric')} is known, as a single item has none: evaluate both "
            "again, on several"
        )
    one, other = first.metrics[name], second.metrics[name]
    comparison = compare_unpaired(one.value, _error(one), other.value, _error(other), choices.alpha)
    note = f"{label}: not paired; on the same items this sees far less than a paired comparison"
    return Row(
        label=label,
        metric=name,
        higher_is_better=one.higher_is_better,
        items=min(first.examples, second.examples),
        clusters=None,
        first=one.value,
        second=other.value,
        comparison=comparison,
        alpha=choices.alpha,
        notes=(note, *_notes((first, second), name, None)),
    )


def _error(metric: Metric) -> float:
    assert metric.standard_error is not None
    return metric.standard_error


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
