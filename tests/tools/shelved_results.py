"""Runs that were never trained, with results of evaluations on their shelves whose numbers a test can predict."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from megatron_patches.artefacts.evaluations.result import DataFile, Metric, Part, TaskResult
from megatron_patches.artefacts.evaluations.shelf import shelve
from megatron_patches.artefacts.run_folder import RunFolder
from tools.evaluation_views.gathered import Found, Gathered

TOKENS = 2_000_000
"""of a step"""


def definition(text: str) -> str:
    """A hash that a definition can have."""
    return hashlib.sha256(text.encode()).hexdigest()


def share(value: float, examples: int, chance: float | None = 0.25) -> Metric:
    """A share of right answers with the standard error of so many items."""
    return Metric(value=value, standard_error=(value * (1 - value) / (examples - 1)) ** 0.5, chance=chance)


def made_result(
    run: str,
    step: int,
    task: str,
    metrics: Mapping[str, Metric],
    *,
    parts: Mapping[str, Part] | None = None,
    examples: int = 1000,
    shots: int = 0,
    limit: int | None = None,
    version: str = "1",
    asked: str = "",
) -> TaskResult:
    """A result; `asked` says what else its definition is of."""
    label = task if limit is None else f"{task}.limit-{limit}"
    return TaskResult(
        task=task, label=label, version=version, definition=definition(f"{task} {shots} {limit} {version} {asked}"),
        data=[DataFile(name=f"{task}.jsonl", sha256=definition(task), rows=examples)], shots=shots, limit=limit,
        examples=examples, through="export", run=run, step=step, tokens=step * TOKENS,
        checkpoint=definition(f"{run}@{step}"), seconds=1.0, date="2026-01-01T00:00:00+00:00",
        metrics=dict(metrics), parts=dict(parts or {}),
    )  # fmt: skip


def put(folder: Path, results: Iterable[TaskResult]) -> RunFolder:
    """Shelves results in a run's folder, and makes that."""
    run = RunFolder(folder)
    run.launches.mkdir(parents=True, exist_ok=True)
    for result in results:
        shelve(run, result, (), [result.checkpoint])
    return run


def subjects(count: int) -> list[str]:
    """Names of parts."""
    return [f"subject_{number:02d}" for number in range(count)]


def mmlu(run: str, step: int, gain: Mapping[str, float], examples: int = 100) -> TaskResult:
    """A task with parts, each at chance plus its gain."""
    parts = {
        name: Part(examples=examples, metrics={"acc": share(0.25 + more, examples)}) for name, more in gain.items()
    }
    mean = sum(part.metrics["acc"].value for part in parts.values()) / len(parts)
    whole = {"acc": share(mean, examples * len(parts))}
    return made_result(run, step, "mmlu", whole, parts=parts, examples=examples * len(parts))


def gathered(*results: TaskResult) -> Gathered:
    """As if they had been read, by step."""
    found = tuple(Found(result.run, result) for result in sorted(results, key=lambda each: each.step))
    return Gathered(tuple(dict.fromkeys(result.run for result in results)), found)
