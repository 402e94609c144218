"""Learning curves: metrics of runs over steps or tokens, a panel for each task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted
from tools.evaluation_views.columns import Column, Place, columns_of, tokens_at
from tools.evaluation_views.definitions import Definitions
from tools.evaluation_views.gathered import Gathered

Axis = Literal["steps", "tokens"]


@dataclass(frozen=True)
class Curve:
    """One run's values of a panel's metric."""

    run: str
    number: int
    """of the run among those that are shown, from 0"""
    definition: int
    """of those that the panel's results have, from 0: curves of two cannot be compared"""
    letter: str
    """the same for people; empty where there is one definition"""
    where: tuple[int, ...]
    """steps or tokens, rising"""
    values: tuple[float, ...]
    errors: tuple[float | None, ...]
    """standard errors"""


@dataclass(frozen=True)
class Panel:
    """One metric of one label."""

    title: str
    higher_is_better: bool
    chances: tuple[float, ...]
    """what a guess scores; several where definitions differ in it"""
    curves: tuple[Curve, ...]

    @property
    def is_logarithmic(self) -> bool:
        """A loss or a perplexity, which falls by factors."""
        return not self.higher_is_better and all(value > 0 for curve in self.curves for value in curve.values)


@dataclass(frozen=True)
class Panels:
    """All that is drawn."""

    panels: tuple[Panel, ...]
    axis: Axis
    runs: tuple[str, ...]
    notes: tuple[str, ...]


def panels_of(
    gathered: Gathered, metrics: Mapping[str, Sequence[str]], definitions: Definitions, axis: Axis | None
) -> Panels:
    """The curves of these metrics by label.

    Args:
        axis: None for tokens where there are several runs and all results know them, else steps.

    Raises:
        Refused: tokens are asked for and no result knows them; there is nothing to draw.
    """
    tokens = tokens_at(gathered)
    places = {Place(each.run, each.step) for each in gathered.found}
    unknown = len(places - tokens.keys())
    chosen: Axis = axis or ("tokens" if len(gathered.runs) > 1 and not unknown else "steps")
    if not places:
        raise Refused("nothing can be drawn yet: no evaluation has ended; tools/evals table shows what is pending")
    if chosen == "tokens" and not tokens:
        raise Refused("no result knows how many tokens its checkpoint was trained on: draw over steps, --x steps")
    notes = [*definitions.notes(), *gathered.notes]
    if chosen == "tokens" and unknown:
        notes.append(
            f"{counted(unknown, 'checkpoint')} left out: the number of tokens is not known there; --x steps has all"
        )
    where = tokens if chosen == "tokens" else {place: place.step for place in places}
    grouped: dict[tuple[str, str], list[Column]] = {}
    for column in columns_of(gathered, metrics, definitions):
        if column.metric:
            grouped.setdefault((column.label, column.metric), []).append(column)
    panels = [
        _panel(f"{label}.{metric}", columns, where, gathered.runs) for (label, metric), columns in grouped.items()
    ]
    drawn = [panel for panel in panels if panel.curves]
    if not drawn:
        raise Refused(
            "nothing can be drawn: no result has a metric to show, or knows its tokens; --x steps draws over steps"
        )
    return Panels(tuple(drawn), chosen, gathered.runs, tuple(notes))


def _panel(title: str, columns: Sequence[Column], where: Mapping[Place, int], runs: Sequence[str]) -> Panel:
    chances = {value.metric.chance for column in columns for value in column.values.values()}
    curves = [
        curve
        for number, run in enumerate(runs)
        for definition, column in enumerate(columns)
        if (curve := _curve(column, run, number, definition, where))
    ]
    known = tuple(sorted(chance for chance in chances if chance is not None))
    return Panel(printable(title), columns[0].higher_is_better, known, tuple(curves))


def _curve(column: Column, run: str, number: int, definition: int, where: Mapping[Place, int]) -> Curve | None:
    found = [(where[place], value) for place, value in column.values.items() if place.run == run and place in where]
    if not found:
        return None
    found.sort(key=lambda each: each[0])
    metrics = [value.metric for _, value in found]
    return Curve(
        printable(run), number, definition, column.letter, tuple(at for at, _ in found),
        tuple(each.value for each in metrics), tuple(each.standard_error for each in metrics),
    )  # fmt: skip
