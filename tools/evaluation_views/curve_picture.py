"""Learning curves as a picture: small multiples, a band of one standard error, what chance gives as a dashed line."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from megatron_patches.sizes import short
from tools.evaluation_views.curves import Curve, Panel, Panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""of Okabe and Ito, whom the colour-blind can tell apart; without yellow, which is faint on white"""
_MARKERS = "os^Dv"
"""of further runs, when the colours begin again"""
_LINES = ("-", ":", "--", "-.")
"""of definitions"""
_ACROSS = 3
_GREY = "#666666"
_DECADE = 10


def draw_curves(panels: Panels) -> "Figure":
    """A figure with a panel for each task and metric."""
    from matplotlib.figure import Figure

    count = len(panels.panels)
    across = min(_ACROSS, count)
    down = -(-count // across)
    curves = [curve for panel in panels.panels for curve in panel.curves]
    handles = _handles(curves)
    size = max(4.2 * across, 5.5), 3 * down + 0.6 + 0.2 * -(-len(handles) // 2)
    figure = Figure(figsize=size, layout="constrained")
    for number, panel in enumerate(panels.panels):
        axes = figure.add_subplot(down, across, number + 1)
        _draw_panel(axes, panel)
        axes.set_xlabel(panels.axis)
    band = "band: one standard error to either side" if any(any(curve.errors) for curve in curves) else ""
    if len({curve.run for curve in curves}) == 1:
        figure.suptitle(curves[0].run, fontsize=11, parse_math=False)
    if len(handles) > 1:
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=2, fontsize=8, title=band, title_fontsize=8
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    else:
        figure.supxlabel(band, fontsize=8, color=_GREY)
    return figure


def _draw_panel(axes: Any, panel: Panel) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    for chance in panel.chances:
        axes.axhline(chance, color=_GREY, linestyle="--", linewidth=1, zorder=1)
        axes.annotate(
            f"chance {chance:.4g}", (1, chance), xycoords=("axes fraction", "data"), xytext=(-3, 2),
            textcoords="offset points", ha="right", va="bottom", fontsize=8, color=_GREY,
        )  # fmt: skip
    for curve in panel.curves:
        _draw_curve(axes, curve)
    if panel.is_logarithmic:
        _logarithmic(axes, panel)
    axes.set_title(panel.title, fontsize=10, parse_math=False)
    where = {at for curve in panel.curves for at in curve.where}
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True) if len(where) > 1 else FixedLocator(list(where)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(round(value))))
    axes.grid(alpha=0.3)
    if not panel.higher_is_better:
        axes.annotate(
            "lower is better", (1, 1), xycoords="axes fraction", xytext=(-3, -3), textcoords="offset points",
            ha="right", va="top", fontsize=8, color=_GREY,
        )  # fmt: skip


def _draw_curve(axes: Any, curve: Curve) -> None:
    colour, marker = _look(curve)
    axes.plot(
        curve.where,
        curve.values,
        marker=marker,
        linestyle=_line(curve),
        color=colour,
        markersize=3.5,
        linewidth=1.4,
        zorder=3,
    )
    bounds = [
        (value - (error or 0), value + (error or 0)) for value, error in zip(curve.values, curve.errors, strict=True)
    ]
    if len(curve.where) > 1:
        low, high = zip(*bounds, strict=True)
        axes.fill_between(curve.where, low, high, color=colour, alpha=0.2, linewidth=0, zorder=2)
    else:  # a band of one point cannot be seen
        axes.vlines(curve.where, *zip(*bounds, strict=True), color=colour, linewidth=1.4, zorder=2)


def _logarithmic(axes: Any, panel: Panel) -> None:
    """Ticks at plain numbers, also where the values are within one power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    values = [value for curve in panel.curves for value in curve.values]
    axes.set_yscale("log")
    narrow = max(values) / min(values) < _DECADE
    axes.yaxis.set_major_locator(MaxNLocator(5) if narrow else LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.4g}" if value < 1e4 else short(round(value)))
    )
    axes.yaxis.set_minor_formatter(NullFormatter())
    if narrow:
        axes.set_ylim(math.exp(math.log(min(values)) - 0.05), math.exp(math.log(max(values)) + 0.05))


def _look(curve: Curve) -> tuple[str, str]:
    colour = _COLOURS[curve.number % len(_COLOURS)]
    return colour, _MARKERS[curve.number // len(_COLOURS) % len(_MARKERS)]


def _line(curve: Curve) -> str:
    return _LINES[curve.definition % len(_LINES)]


def _handles(curves: Sequence[Curve]) -> list[object]:
    """Of the legend: the runs by colour, then the definitions by line where there are several."""
    from matplotlib.lines import Line2D

    handles: list[object] = []
    for curve in {curve.number: curve for curve in curves}.values():
        colour, marker = _look(curve)
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=4, label=curve.run))
    lettered = {curve.definition: curve for curve in curves if curve.letter}
    for _, curve in sorted(lettered.items()):
        label = f"({curve.letter})" + (" asked otherwise than (a)" if curve.definition else "")
        handles.append(Line2D([], [], color=_GREY, linestyle=_line(curve), label=label))
    return handles
