"""A heat map's numbers: a row for each part of a task, a column for each checkpoint, differences to a base."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from megatron_patches.artefacts.evaluations.definitions import differences
from megatron_patches.artefacts.evaluations.result import Metric
from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.sizes import counted
from tools.evaluation_views.columns import Column, Place, Value, part_columns, places_of, tokens_at
from tools.evaluation_views.definitions import definitions_of
from tools.evaluation_views.gathered import Found, Gathered
from tools.evaluation_views.heat_map.base import Base, BaseValue

Order = Literal["name", "gain"]
RelativeTo = Literal["base", "chance", "nothing"]
SURE = 1.96
"""standard errors beyond which one of twenty differences between equal models lies"""


@dataclass(frozen=True)
class Cell:
    """A number of the map."""

    value: float
    """of the metric itself"""
    shown: float
    """percentage points, or the metric's own unit: the value, or its difference"""
    error: float | None
    """standard error of what is shown, in the same unit; None where it is not known"""
    within_noise: bool
    """the difference is less than SURE standard errors of it"""


@dataclass(frozen=True)
class Row:
    """A part of a task, or the whole task."""

    name: str
    label: str
    part: str | None
    metric: str
    cells: tuple[Cell | None, ...]
    """None where there is no result"""


@dataclass(frozen=True)
class Heat:
    """All that is drawn."""

    title: str
    rows: tuple[Row, ...]
    places: tuple[Place, ...]
    tokens: tuple[int | None, ...]
    relative_to: RelativeTo
    unit: str
    higher_is_better: bool
    notes: tuple[str, ...]

    @cached_property
    def largest(self) -> float:
        """The largest number without its sign: the scale's limit on either side."""
        return max((abs(cell.shown) for row in self.rows for cell in row.cells if cell), default=0.0) or 1.0


def heat_of(
    gathered: Gathered,
    metrics: Mapping[str, Sequence[str]],
    base: Base | None,
    absolute: bool,
    order: Order,
) -> Heat:
    """The map of one run's results.

    Args:
        base: None for differences to chance.
        absolute: the values themselves, in place of differences.
        order: rows by name, or those that gained most by the last checkpoint first; the whole task before its parts.

    Raises:
        Refused: the base was asked something else, chance is not known, or accuracies and losses would share a scale.
    """
    kept, notes = _one_definition(gathered, base)
    columns = [column for column in part_columns(kept, metrics, definitions_of(kept.found)) if column.metric]
    places = [place for place in places_of(kept) if any(place in column.values for column in columns)]
    relative: RelativeTo = "nothing" if absolute else "base" if base else "chance"
    share, better = _common_scale(columns)
    several = len({column.label for column in columns}) > 1
    rows = [_row(column, places, base, relative, 100.0 if share else 1.0, several) for column in columns]
    missing = [row.name for row in rows if not any(row.cells)]
    rows = [row for row in rows if any(row.cells)]
    if not rows:
        raise Refused(_nothing_to_compare(kept, base, relative))
    if missing:
        notes.append(
            f"left out, {'the base has no such result' if base else 'chance is not known'}: {', '.join(missing)}"
        )
    if _has_unsure(rows, relative):
        notes.append("a difference without a known standard error is shown as if it were sure")
    tokens = tokens_at(kept)
    return Heat(
        title=_title(gathered.runs[0], columns),
        rows=tuple(_sorted(rows, order, better)),
        places=tuple(places),
        tokens=tuple(tokens.get(place) for place in places),
        relative_to=relative,
        unit="percentage points" if share else columns[0].metric,
        higher_is_better=better,
        notes=(*notes, *(base.notes if base else ()), *gathered.notes),
    )


def _title(run: str, columns: Sequence[Column]) -> str:
    metrics = dict.fromkeys(f"{each.label}.{each.metric}" for each in columns)
    return f"{printable(run)}: {shortened(', '.join(metrics), 100)}"


def _one_definition(gathered: Gathered, base: Base | None) -> tuple[Gathered, list[str]]:
    """The results of the base's definition, or without one of the latest result's; what is left out is told.

    Raises:
        Refused: no result of any label has the base's.
    """
    wanted: dict[str, str] = {each.result.label: each.result.definition for each in gathered.found}
    if base is not None and base.foreign is None:
        wanted |= {label: result.definition for label, result in base.results.items()}
    found = tuple(each for each in gathered.found if wanted[each.result.label] == each.result.definition)
    if base is not None:
        found = tuple(each for each in found if not base.why_not(each.result))
        if not found:
            reasons = {base.why_not(each.result): None for each in gathered.found}
            raise Refused(f"{base.name} and this run were not asked the same: {'; '.join(reasons)}")
    there = set(map(id, found))
    left = [each for each in gathered.found if id(each) not in there]
    notes = [_left_out(each, base, found) for each in {each.result.definition: each for each in left}.values()]
    return replace(gathered, found=found, unfinished=()), notes


def _left_out(one: Found, base: Base | None, kept: Sequence[Found]) -> str:
    if base is not None and (reason := base.why_not(one.result)):
        return f"{one.result.label} of step {one.step} and others like it left out: {reason}"
    other = next(each for each in kept if each.result.label == one.result.label)
    differ = "; ".join(differences(other.result, one.result))
    return (
        f"{one.result.label} of step {one.step} and others like it left out, they are of another definition: {differ}"
    )


def _common_scale(columns: Sequence[Column]) -> tuple[bool, bool]:
    """Whether all are shares, shown as percentages, and whether more is better."""
    shares = {column.label: _is_share(column) for column in columns}
    directions = {column.higher_is_better for column in columns}
    if len(set(shares.values())) > 1 or len(directions) > 1:
        told = ", ".join(f"{label} {'a share' if share else 'none'}" for label, share in shares.items())
        raise Refused(f"shares of right answers and other numbers have no scale in common: choose by --tasks ({told})")
    return next(iter(shares.values()), True), next(iter(directions), True)


def _is_share(column: Column) -> bool:
    return column.higher_is_better and all(0 <= value.metric.value <= 1 for value in column.values.values())


def _row(
    column: Column, places: Sequence[Place], base: Base | None, relative: RelativeTo, scale: float, several: bool
) -> Row:
    whole = column.label if column.part is None else None
    name = whole or (f"{column.label}.{column.part}" if several else str(column.part))
    cells = [_cell(column, column.values.get(place), base, relative, scale) for place in places]
    return Row(printable(name), column.label, column.part, column.metric, tuple(cells))


def _cell(column: Column, value: Value | None, base: Base | None, relative: RelativeTo, scale: float) -> Cell | None:
    if value is None:
        return None
    own, error = value.metric.value, _error(value.metric, value.examples)
    if relative == "nothing":
        return Cell(own, own * scale, None if error is None else error * scale, False)
    other: BaseValue | None
    if base is not None:
        other = base.value(value.found.result, column.part, column.metric)
    else:
        chance = value.metric.chance
        if chance is None:
            whole = value.found.result.metrics.get(column.metric)
            chance = whole.chance if whole else None
        other = None if chance is None else BaseValue(Metric(value=chance, standard_error=0.0), None)
    if other is None:
        return None
    theirs = _error(other.metric, other.examples)
    both = None if error is None or theirs is None else math.hypot(error, theirs)
    difference = own - other.metric.value
    noise = both is not None and abs(difference) < SURE * both
    return Cell(own, difference * scale, None if both is None else both * scale, noise)


def _error(metric: Metric, examples: int | None) -> float | None:
    """The standard error; where all answers were alike, that of one more right and one more wrong answer, since few
    items that all went wrong do not show that none could go right.
    """
    if metric.standard_error != 0 or not examples or metric.value not in (0, 1):
        return metric.standard_error
    share = (metric.value * examples + 1) / (examples + 2)
    return math.sqrt(share * (1 - share) / (examples + 2))


def _has_unsure(rows: Sequence[Row], relative: RelativeTo) -> bool:
    return relative != "nothing" and any(cell.error is None for row in rows for cell in row.cells if cell)


def _sorted(rows: Sequence[Row], order: Order, higher_is_better: bool) -> list[Row]:
    def gain(row: Row) -> float:
        last = next((cell.shown for cell in reversed(row.cells) if cell), 0.0)
        return -last if higher_is_better else last

    return sorted(
        rows, key=lambda row: (row.label, row.part is not None, gain(row) if order == "gain" else 0, row.name)
    )


def _nothing_to_compare(gathered: Gathered, base: Base | None, relative: RelativeTo) -> str:
    labels = ", ".join(sorted({each.result.label for each in gathered.found}))
    if relative == "nothing":
        return f"{gathered.runs[0]} has no result to show"
    if base is not None:
        return f"{base.name} has none of the numbers of {labels}: name a base that was asked the same"
    return f"what chance gives is not known of {labels}: name a base (--base RUN@STEP), or show values (--absolute)"


def caption(heat: Heat, base: Base | None, looks: str) -> list[str]:
    """What stands under the map.

    Args:
        looks: how a difference that is within the noise is told from others.
    """
    if heat.relative_to == "nothing":
        return []
    cells = [cell for row in heat.rows for cell in row.cells if cell]
    noise = sum(cell.within_noise for cell in cells)
    to = base.name if base else "what chance gives"
    return [
        f"differences to {to}, in {heat.unit}{'' if heat.higher_is_better else '; less is better'}",
        f"{noise:,} of {counted(len(cells), 'difference')} within {SURE} standard errors (unpaired), {looks}: no "
        "difference shown",
    ]
