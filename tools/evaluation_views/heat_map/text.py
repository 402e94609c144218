"""A heat map as text for a terminal, and as CSV."""

import csv
import io

from tools.evaluation_views.curves import Axis
from tools.evaluation_views.heat_map.numbers import Heat
from tools.evaluation_views.heat_map.picture import column_names, written

_NAMES = (
    *("label", "part", "metric", "step", "tokens", "value", "shown", "unit"),
    *("standard_error_of_shown", "within_noise"),
)


def text_heat(heat: Heat, axis: Axis) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table: numbers in brackets lie within the noise, `-` is no result."""
    rows = [
        [row.name, *("-" if cell is None else _bracketed(written(heat, cell), cell.within_noise) for cell in row.cells)]
        for row in heat.rows
    ]
    return [axis, *column_names(heat, axis)], rows


def _bracketed(text: str, within_noise: bool) -> str:
    """Both forms have their digits at one place."""
    return f"({text})" if within_noise else f"{text} "


def heat_csv(heat: Heat) -> bytes:
    """A row for each number; `shown` and its standard error are in `unit`, `value` is the metric itself."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_NAMES)
    for row in heat.rows:
        for place, tokens, cell in zip(heat.places, heat.tokens, row.cells, strict=True):
            if cell is not None:
                known = [row.label, row.part, row.metric, place.step, tokens, cell.value]
                writer.writerow([*known, cell.shown, heat.unit, cell.error, cell.within_noise])
    return text.getvalue().encode()
