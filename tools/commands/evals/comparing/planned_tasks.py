"""What a comparison on a task has to go by, before it is paid for: from numbers that are given, or from results."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from megatron_patches.artefacts.evaluations.primary_metric import primary_metric
from megatron_patches.artefacts.evaluations.result import Item, TaskResult
from megatron_patches.artefacts.evaluations.shelf import Evaluation, items_of, list_evaluations
from megatron_patches.errors import Missing, Refused
from megatron_patches.evaluation.statistics.clusters import LEAST_CLUSTERS, in_clusters, intra_cluster_correlation
from megatron_patches.evaluation.statistics.distributions import Floats
from megatron_patches.foreign.printable import shortened
from tools.commands.evals.comparing.compared_items import cluster_names, paired_items
from tools.evaluation_views.evaluated_step import EvaluatedStep

_ALIKE = (0.25, 0.5, 1.0)
"""discordant items as a part of those of two models whose answers have nothing to do with each other"""
ASSUMED_CORRELATION = 0.02


@dataclass(frozen=True)
class Known:
    """What a person gives, each in place of what is found or assumed."""

    accuracy: float | None = None
    discordant: float | None = None
    correlation: float | None = None


@dataclass(frozen=True)
class PlannedTask:
    """A task that is to be asked of two models."""

    name: str
    items: int
    discordant: tuple[float, ...]
    """shares of items on which one of two models alone is right: one that is known, or a range"""
    sizes: Floats | None
    """items of each cluster; None where they are independent"""
    correlation: float
    """of the differences of two items of one cluster"""
    seconds: float | None
    """that asking one model took"""
    sources: tuple[str, ...]
    """where the numbers come from"""


def task_of_numbers(items: int, clusters: int | None, known: Known) -> PlannedTask:
    """A task of which only these numbers are known; clusters are taken as of one size.

    Raises:
        Refused: the numbers exclude each other.
    """
    if clusters is None and known.correlation is not None:
        raise Refused("--correlation is that of items in one cluster: give --clusters too")
    if clusters is not None and clusters < LEAST_CLUSTERS:
        raise Refused(f"--clusters {clusters}: at least {LEAST_CLUSTERS} can be compared; leave it out for fewer")
    if clusters is not None and clusters > items:
        raise Refused(f"--clusters {clusters}: there are no more than {items:,} items")
    discordant, sources = _discordance(0.5 if known.accuracy is None else known.accuracy, known)
    sizes = None if clusters is None else np.full(clusters, items / clusters)
    correlation, source = (0.0, None) if sizes is None else _assumed_correlation(known)
    told = () if source is None else (source,)
    return PlannedTask(f"{items:,} items", items, discordant, sizes, correlation, None, (*sources, *told))


def tasks_of_results(side: EvaluatedStep, labels: Sequence[str], known: Known) -> tuple[list[PlannedTask], list[str]]:
    """The tasks that a checkpoint was evaluated on, by accuracies, and the labels of those that have none.

    Raises:
        Refused: a label is none of them, or none is left.
    """
    results = side.evaluation.results
    if lacking := [label for label in labels if label not in results]:
        told = ", ".join(map(shortened, lacking))
        raise Refused(f"{side.name} has no result {told}: it has {', '.join(sorted(results))}")
    found = {label: _task_of_result(side, results[label], known) for label in sorted(set(labels or results))}
    tasks = [task for task in found.values() if task is not None]
    if not tasks:
        raise Refused(
            f"{side.name} has no result whose items were kept and are right or wrong, which a plan needs: evaluate "
            "such a task, or give --examples"
        )
    return tasks, [label for label, task in found.items() if task is None]


def _task_of_result(side: EvaluatedStep, result: TaskResult, known: Known) -> PlannedTask | None:
    try:
        items = items_of(side.evaluation.folder, result.label)
    except Missing:
        items = []
    kept = set.intersection(*(set(item.metrics) for item in items)) if items else set()
    metric = primary_metric(kept & result.metrics.keys())
    if metric is None or not {item.metrics[metric] for item in items} <= {0.0, 1.0}:
        return None
    accuracy = sum(item.metrics[metric] for item in items) / len(items)
    step, differences = _neighbour(side, result, items, metric)
    if step is not None and known.discordant is None and known.accuracy is None and any(differences):
        discordant: tuple[float, ...] = (float(np.mean(np.abs(differences))),)
        sources: tuple[str, ...] = (f"discordant {_percent(discordant)}: as between steps {step} and {result.step}",)
    else:
        discordant, sources = _discordance(accuracy if known.accuracy is None else known.accuracy, known)
    names = cluster_names(items)
    sizes, correlation = None, 0.0
    told: tuple[str, ...] = ()
    if names is not None and len(set(names)) >= LEAST_CLUSTERS:
        sizes = in_clusters(np.ones(len(items)), names).sizes
        if step is not None and known.correlation is None:
            correlation = intra_cluster_correlation(differences, names)
            told = (f"correlation in clusters {correlation:.3f}: as between steps {step} and {result.step}",)
        else:
            correlation, source = _assumed_correlation(known)
            told = (source,)
    if result.parts:
        told = (*told, f"--limit counts items of each of its {len(result.parts)} parts")
    name = f"{result.label}.{metric}"
    return PlannedTask(name, len(items), discordant, sizes, correlation, result.seconds, (*sources, *told))


def _neighbour(
    side: EvaluatedStep, result: TaskResult, items: list[Item], metric: str
) -> tuple[int | None, list[float]]:
    """The run's nearest step, before rather than after, that was asked the same; and differences of the items."""
    others = [each for each in list_evaluations(side.run, []) if each.step != result.step and not each.is_invalid]
    for other in sorted(others, key=lambda each: (abs(each.step - result.step), each.step)):
        if (differences := _differences(other, result, items, metric)) is not None:
            return other.step, differences
    return None, []


def _differences(other: Evaluation, result: TaskResult, items: list[Item], metric: str) -> list[float] | None:
    found = other.results.get(result.label)
    if found is None or found.definition != result.definition:
        return None
    try:
        pairs = paired_items(items, items_of(other.folder, result.label))
    except (Missing, Refused):
        return None
    if any(metric not in item.metrics for item in pairs[1]):
        return None
    return [one.metrics[metric] - two.metrics[metric] for one, two in zip(*pairs, strict=True)]


def _discordance(accuracy: float, known: Known) -> tuple[tuple[float, ...], tuple[str, ...]]:
    if known.discordant is not None:
        return (known.discordant,), (f"discordant {_percent((known.discordant,))}: as given",)
    unrelated = 2 * accuracy * (1 - accuracy)
    shares = tuple(part * unrelated for part in _ALIKE)
    return shares, (
        f"discordant {_percent(shares)}: of two models with accuracy {accuracy:.3g} whose answers are much alike / "
        "half alike / unrelated",
    )


def _assumed_correlation(known: Known) -> tuple[float, str]:
    if known.correlation is not None:
        return known.correlation, f"correlation in clusters {known.correlation:g}: as given"
    return ASSUMED_CORRELATION, f"correlation in clusters {ASSUMED_CORRELATION:g}: assumed; --correlation gives another"


def _percent(shares: Sequence[float]) -> str:
    return f"{' / '.join(f'{100 * share:.3g}' for share in shares)} %"
