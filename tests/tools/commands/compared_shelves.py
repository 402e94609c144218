"""Evaluations with made-up items, on the shelves of made-up runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from megatron_patches.artefacts.evaluations.result import DataFile, Item, Metric, TaskResult, label_of
from megatron_patches.artefacts.evaluations.shelf import shelve
from megatron_patches.artefacts.run_folder import RunFolder


def answers(right_alone: int, other_alone: int, both: int, items: int) -> tuple[list[float], list[float]]:
    """Two models' answers to the same items: 1 where right."""
    first = [1.0] * right_alone + [0.0] * other_alone + [1.0] * both
    second = [0.0] * right_alone + [1.0] * other_alone + [1.0] * both
    rest = [0.0] * (items - len(first))
    return first + rest, second + rest


def subjects(items: int, clusters: int) -> list[str]:
    """Clusters of items, in turn."""
    return [f"subject {number % clusters}" for number in range(items)]


def shelve_task(
    runs: Path, run: str, step: int, task: str, numbers: Mapping[str, Sequence[float]], *,
    clusters: Sequence[str] | None = None, lower: bool = False, keep: bool = True, **changed: object,
) -> Path:  # fmt: skip
    """Shelves a result of which each item has these numbers, by metric; returns the evaluation's folder."""
    columns = {name: np.asarray(values) for name, values in numbers.items()}
    count = len(next(iter(columns.values())))
    metrics = {
        name: Metric(
            value=float(values.mean()),
            standard_error=float(values.std(ddof=1) / count**0.5) if count > 1 else None,
            higher_is_better=not lower,
        )
        for name, values in columns.items()
    }
    items = [
        Item(
            id=f"{number:08x}",
            cluster=clusters[number] if clusters else None,
            metrics={name: float(values[number]) for name, values in columns.items()},
        )
        for number in range(count)
    ]
    checkpoint = f"{step:08x}" * 8
    facts: dict[str, object] = {
        "task": task, "label": label_of(task, None, None, None), "version": "1.0", "definition": "d" * 64,
        "data": [DataFile(name=f"{task}.jsonl", sha256="e" * 64, rows=count)], "shots": 0, "examples": count,
        "through": "export", "run": run, "step": step, "tokens": 1000 * step, "checkpoint": checkpoint, "seconds": 60.0,
        "date": "2026-11-30T00:00:00+00:00", "metrics": metrics, "precision": "bf16",
    }  # fmt: skip
    result = TaskResult.model_validate({**facts, **changed})
    folder = RunFolder(runs / run)
    folder.launches.mkdir(parents=True, exist_ok=True)
    return shelve(folder, result, items if keep else [], [result.checkpoint])
