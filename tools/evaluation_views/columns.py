"""Results as columns: a metric of a label and a definition, with its value at each place of a run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from megatron_patches.artefacts.evaluations.result import Metric
from megatron_patches.foreign.printable import printable
from tools.evaluation_views.definitions import Definitions
from tools.evaluation_views.gathered import Found, Gathered


class Place(NamedTuple):
    """A checkpoint of a run."""

    run: str
    step: int


@dataclass(frozen=True)
class Value:
    """A metric of a result, or of a part of it."""

    found: Found
    metric: Metric
    examples: int
    """items that it is a mean over"""


@dataclass(frozen=True)
class Column:
    """One metric of one definition at all places; the whole task's, or a part's."""

    label: str
    metric: str
    """empty for a label that has no result yet"""
    letter: str
    """of the definition, where the label's results have several"""
    values: Mapping[Place, Value]
    part: str | None = None

    @property
    def title(self) -> str:
        """LABEL.METRIC or LABEL.PART.METRIC, with the letter."""
        name = ".".join(printable(each) for each in (self.label, self.part, self.metric) if each)
        return f"{name} ({self.letter})" if self.letter else name

    @cached_property
    def higher_is_better(self) -> bool:
        """As the first result says."""
        return next((value.metric.higher_is_better for value in self.values.values()), True)

    @cached_property
    def best(self) -> frozenset[Place]:
        """Where it is best, all equal ones; empty where all valid values are the same, or there is one."""
        valid = {place: value.metric.value for place, value in self.values.items() if not value.found.invalid}
        if len(set(valid.values())) < 2:
            return frozenset()
        best = max(valid.values()) if self.higher_is_better else min(valid.values())
        return frozenset(place for place, value in valid.items() if value == best)


def columns_of(gathered: Gathered, metrics: Mapping[str, Sequence[str]], definitions: Definitions) -> list[Column]:
    """A column for each metric of each label, and for each definition; of a label without a result an empty one."""
    columns = []
    by_definition = _by_definition(gathered.found)
    for label, names in metrics.items():
        for name in names:
            for definition in definitions.first.get(label, {}):
                values = values_of(by_definition[label, definition], name, None)
                if values:
                    columns.append(Column(label, name, definitions.letter(label, definition), values))
        if not names:
            columns.append(Column(label, "", "", {}))
    return columns


def part_columns(gathered: Gathered, metrics: Mapping[str, Sequence[str]], definitions: Definitions) -> list[Column]:
    """The same for each part, sorted by name, after the whole task's own."""
    columns = []
    by_definition = _by_definition(gathered.found)
    for whole in columns_of(gathered, metrics, definitions):
        columns.append(whole)
        for definition in definitions.first.get(whole.label, {}):
            if definitions.letter(whole.label, definition) != whole.letter:
                continue
            found = by_definition[whole.label, definition]
            for part in sorted({part for each in found for part in each.result.parts}):
                values = values_of(found, whole.metric, part)
                if values:
                    columns.append(Column(whole.label, whole.metric, whole.letter, values, part))
    return columns


def values_of(found: Iterable[Found], metric: str, part: str | None) -> dict[Place, Value]:
    """A metric at each place that has it, of results of one label and definition."""
    values = {}
    for each in found:
        of = each.result if part is None else each.result.parts.get(part)
        if of is not None and metric in of.metrics:
            values[Place(each.run, each.step)] = Value(each, of.metrics[metric], of.examples)
    return values


def places_of(gathered: Gathered) -> list[Place]:
    """Every checkpoint that has a result, or an evaluation to come, run by run and by step."""
    there = {Place(each.run, each.step) for each in gathered.found}
    there |= {Place(each.run, each.state.step) for each in gathered.unfinished}
    order = {run: number for number, run in enumerate(gathered.runs)}
    return sorted(there, key=lambda place: (order[place.run], place.step))


def tokens_at(gathered: Gathered) -> dict[Place, int]:
    """Tokens that each checkpoint was trained on, where a result says it."""
    return {Place(each.run, each.step): each.result.tokens for each in gathered.found if each.result.tokens is not None}


def _by_definition(found: Iterable[Found]) -> dict[tuple[str, str], list[Found]]:
    grouped: dict[tuple[str, str], list[Found]] = {}
    for each in found:
        grouped.setdefault((each.result.label, each.result.definition), []).append(each)
    return grouped
