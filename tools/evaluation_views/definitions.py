"""Results of one label that were not asked the same: told apart by letters, with what differs between them."""

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from megatron_patches.artefacts.evaluations.definitions import differences
from megatron_patches.artefacts.evaluations.result import TaskResult
from tools.evaluation_views.gathered import Found


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
