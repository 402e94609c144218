"""Items of results as a comparison takes them: in pairs, with their clusters, by one metric."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from megatron_patches.artefacts.evaluations.primary_metric import primary_metric
from megatron_patches.artefacts.evaluations.result import Item, TaskResult
from megatron_patches.artefacts.evaluations.shelf import items_of
from megatron_patches.errors import Missing, Refused
from megatron_patches.foreign.printable import printable, shortened


def kept_items(folder: Path, result: TaskResult) -> list[Item]:
    """The items of a result in an evaluation's folder.

    Raises:
        Missing: they were not kept.
        Damaged: they are none.
    """
    try:
        found = items_of(folder, result.label)
    except Missing:
        found = []
    if not found:
        if "loss" in result.metrics:
            raise Missing("a loss keeps no items that could be paired; compare by standard errors alone: --unpaired")
        raise Missing(
            f"the items of {printable(result.run)}@{result.step} were not kept, so that they cannot be paired; "
            "evaluate again, or compare by standard errors alone: --unpaired"
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


def compared_metric(
    results: tuple[TaskResult, TaskResult], pairs: tuple[list[Item], list[Item]], asked: str | None
) -> str:
    """The metric that is asked for, else the primary one.

    Raises:
        Refused: not every item has it.
    """
    kept = set.intersection(*(set(item.metrics) for side in pairs for item in side))
    shared = kept & results[0].metrics.keys() & results[1].metrics.keys()
    if asked is None:
        if found := primary_metric(shared):
            return found
        raise Refused("its items keep no metric of it; evaluate again, or compare by standard errors alone: --unpaired")
    if asked not in shared:
        raise Refused(f"its items keep no {shortened(asked)}: --metric {' or '.join(sorted(shared))}")
    return asked
