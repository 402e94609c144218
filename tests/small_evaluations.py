"""Results of evaluations, made up, for tests of what keeps, finds and shows them."""

from collections.abc import Mapping
from pathlib import Path

from megatron_patches.artefacts.evaluations.result import Item, Metric, Part, TaskResult
from megatron_patches.artefacts.evaluations.shelf import shelve
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.run_folder import RunFolder
from tests.small_artefacts import RUN

DEFINITION = "d" * 64


def make_result(
    checkpoint: Manifest,
    label: str = "hellaswag",
    *,
    definition: str = DEFINITION,
    parts: Mapping[str, float] | None = None,
    higher_is_better: bool = True,
    date: str = "2026-11-01T10:00:00+00:00",
    metrics: Mapping[str, float] | None = None,
    **more: float,
) -> TaskResult:
    """What a checkpoint scored; without metrics an accuracy of 0.25. Of parts the accuracy alone is stated."""
    facts = checkpoint.facts
    found = {**(metrics or {}), **more} or {"acc": 0.25}
    return TaskResult(
        task=label,
        label=label,
        version="1",
        definition=definition,
        shots=0,
        examples=200,
        through="export",
        run=str(facts["run"]),
        step=int(str(facts["step"])),
        tokens=int(str(facts["tokens"])),
        checkpoint=checkpoint.id,
        seconds=1.5,
        date=date,
        metrics={
            name: Metric(value=value, standard_error=0.03, higher_is_better=higher_is_better)
            for name, value in found.items()
        },
        parts={name: Part(examples=10, metrics={"acc": Metric(value=value)}) for name, value in (parts or {}).items()},
    )


def make_items(number: int = 3) -> list[Item]:
    """Some items."""
    return [Item(id=f"{each:04x}", metrics={"acc": float(each % 2)}) for each in range(number)]


def evaluate(runs: Path, result: TaskResult, items: int = 3, run: str = RUN) -> Path:
    """Shelves a result; the folder of its evaluation."""
    return shelve(RunFolder(runs / run), result, make_items(items), [result.checkpoint])
