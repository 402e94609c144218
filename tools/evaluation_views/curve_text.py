"""Learning curves as text, for a terminal."""

from collections.abc import Iterator, Sequence
from string import ascii_lowercase

import numpy as np

from tools.evaluation_views.curves import Curve, Panel, Panels
from tools.evaluation_views.table import number
from tools.text_plot import TextCurve, plot_lines

_HEIGHT = 10


def text_panels(panels: Panels, width: int) -> list[str]:
    """A plot for each panel, then what the signs mean.

    Args:
        width: of the lines, in characters.
    """
    names = list(dict.fromkeys(_name(curve) for panel in panels.panels for curve in panel.curves))
    signs = dict(zip(names, _signs(len(names)), strict=True))
    lines: list[str] = []
    for panel in panels.panels:
        lines += [_title(panel, panels.axis), *_plot(panel, signs, width), ""]
    return [*lines, *(f"{sign} {name}" for name, sign in signs.items())]


def _name(curve: Curve) -> str:
    return f"{curve.run} ({curve.letter})" if curve.letter else curve.run


def _signs(count: int) -> Iterator[str]:
    """`o` of a single curve; letters of several, which begin again after z."""
    return iter("o") if count == 1 else (ascii_lowercase[each % len(ascii_lowercase)] for each in range(count))


def _title(panel: Panel, axis: str) -> str:
    chance = f"; - chance {' and '.join(f'{each:.4g}' for each in panel.chances)}" if panel.chances else ""
    return f"{panel.title} over {axis}{'' if panel.higher_is_better else '; lower is better'}{chance}"


def _plot(panel: Panel, signs: dict[str, str], width: int) -> Sequence[str]:
    curves = [
        TextCurve(signs[_name(curve)], np.array(curve.where, dtype=np.float64), np.array(curve.values))
        for curve in panel.curves
    ]
    values = [*panel.chances, *(value for curve in panel.curves for value in curve.values)]
    low, high = min(values), max(values)
    if low == high:
        return [f"{number(low)} wherever it was measured"]
    return plot_lines(curves, (low, high), width, _HEIGHT, panel.chances)[0]
