"""What keeps two results of one label from being compared. Torch-free."""

from collections.abc import Iterator, Sequence
from typing import Any

from megatron_patches.artefacts.evaluations.result import DataFile, TaskResult
from megatron_patches.foreign.printable import shortened

_SHOWN_HASH = 8


def differences(one: TaskResult, other: TaskResult) -> list[str]:
    """In what two results of different definitions differ, each with both values; never empty."""
    facts = [
        ("task", one.task, other.task),
        ("version", one.version, other.version),
        ("shots", one.shots, other.shots),
        ("limit", one.limit or "all items", other.limit or "all items"),
        ("length", one.length or "that of training", other.length or "that of training"),
        ("examples", one.examples, other.examples),
        *_of_fine_tuning(one, other),
    ]
    found = [f"{name} {shortened(left)} and {shortened(right)}" for name, left, right in facts if left != right]
    if [each.sha256 or each.name for each in one.data] != [each.sha256 or each.name for each in other.data]:
        found.append(f"data {shortened(_data(one.data))} and {shortened(_data(other.data))}")
    if not found:
        hashes = one.definition[:_SHOWN_HASH], other.definition[:_SHOWN_HASH]
        found = [f"prompts or metrics differ (definitions {hashes[0]} and {hashes[1]})"]
    return found


def _of_fine_tuning(one: TaskResult, other: TaskResult) -> Iterator[tuple[str, Any, Any]]:
    first, second = one.fine_tuning or {}, other.fine_tuning or {}
    for name in sorted(first.keys() | second.keys()):
        yield name.replace("_", " "), first.get(name, "none"), second.get(name, "none")


def _data(files: Sequence[DataFile]) -> str:
    return ", ".join(f"{each.name} ({each.sha256[:_SHOWN_HASH]})" if each.sha256 else each.name for each in files)
