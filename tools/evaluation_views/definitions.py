"""Results of one label that were not asked the same: told apart by letters, with what differs between them."""

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from megatron_patches.artefacts.evaluations.result import DataFile, TaskResult
from megatron_patches.foreign.printable import shortened
from tools.evaluation_views.gathered import Found

_SHOWN_HASH = 8


@dataclass(frozen=True)
class Definitions:
    """The definitions that the results of each label have."""

    first: Mapping[str, Mapping[str, TaskResult]]
    """by label and definition, in the order in which they appear: a result that has it"""

    def letter(self, label: str, definition: str) -> str:
        """What tells it from others of its label: a, b, ...; empty where it is the only one."""
        known = list(self.first[label])
        if len(known) == 1:
            return ""
        number = known.index(definition)
        letters = string.ascii_lowercase
        return letters[number] if number < len(letters) else str(number + 1)

    def notes(self) -> list[str]:
        """For each label with several what differs, in a line for each but the first."""
        told = []
        for label, known in self.first.items():
            (first, result), *others = known.items()
            for definition, other in others:
                letters = self.letter(label, first), self.letter(label, definition)
                differ = "; ".join(differences(result, other))
                told.append(f"{label} ({letters[0]}) and ({letters[1]}) cannot be compared: {differ}")
        return told


def definitions_of(found: Iterable[Found]) -> Definitions:
    """Those of results, in their order."""
    first: dict[str, dict[str, TaskResult]] = {}
    for each in found:
        first.setdefault(each.result.label, {}).setdefault(each.result.definition, each.result)
    return Definitions(first)


def differences(one: TaskResult, other: TaskResult) -> list[str]:
    """In what two results of different definitions differ, each with both values; never empty."""
    facts = (
        ("task", one.task, other.task),
        ("version", one.version, other.version),
        ("shots", one.shots, other.shots),
        ("limit", one.limit or "all items", other.limit or "all items"),
        ("length", one.length or "that of training", other.length or "that of training"),
        ("examples", one.examples, other.examples),
    )
    found = [f"{name} {shortened(left)} and {shortened(right)}" for name, left, right in facts if left != right]
    if [each.sha256 or each.name for each in one.data] != [each.sha256 or each.name for each in other.data]:
        found.append(f"data {shortened(_data(one.data))} and {shortened(_data(other.data))}")
    if not found:
        hashes = one.definition[:_SHOWN_HASH], other.definition[:_SHOWN_HASH]
        found = [f"prompts or metrics differ (definitions {hashes[0]} and {hashes[1]})"]
    return found


def _data(files: Sequence[DataFile]) -> str:
    return ", ".join(f"{each.name} ({each.sha256[:_SHOWN_HASH]})" if each.sha256 else each.name for each in files)
