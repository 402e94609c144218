"""Curves of several runs over steps or tokens: panels of a PNG, and one panel as text."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import short
from tools.run_views.comparison import Axis, Column, Metric, positions, validation_positions
from tools.run_views.history import History
from tools.text_plot import TextCurve, plot_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BUCKETS = 1000
"""stretches into which a long curve is cut; of each the smallest and the largest value are drawn"""
_SMOOTHED_SHARE = 50
"""the smoothed line is a mean of so large a share of the steps: 1/50"""
_BEGINNING = 10
"""the first tenth of the axis, where losses fall by several nats, does not decide how high a panel is"""


def curve_of(history: History, metric: Metric, axis: Axis, source: str | None) -> tuple[Column, Column]:
    """Where a metric was recorded and what it was; what is not finite is left out."""
    if metric.column is not None:
        where, values = positions(history, axis), history.steps.numbers[metric.column]
    elif (validations := history.validations.get(source or "")) is not None:
        where, values = validation_positions(validations, axis), validations.losses
    else:
        where = values = np.zeros(0)
    known = np.isfinite(where) & np.isfinite(values)
    return where[known], values[known]


def smoothed(values: Column, window: int) -> Column:
    """Mean over each value and half a window on either side of it, less at both ends; a mean of what came before
    would lie above a loss that falls.
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    begins = np.maximum(0, places - window // 2)
    ends = np.minimum(len(values), places + window // 2 + 1)
    return (sums[ends] - sums[begins]) / (ends - begins)


def draw_comparison(
    histories: Sequence[History],
    labels: Sequence[str],
    metrics: Sequence[Metric],
    axis: Axis,
    source: str | None,
) -> "Figure":
    """A figure with a panel for each metric and a curve for each run: smoothed, over the faint raw one."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    columns = min(2, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(6 * columns, 3.6 * rows + 0.3 * -(-len(labels) // 2)), layout="constrained")
    palette = colormaps["tab10" if len(labels) <= 10 else "tab20"]
    drawn: set[int] = set()
    for number, metric in enumerate(metrics):
        panel = figure.add_subplot(rows, columns, number + 1)
        curves = [curve_of(history, metric, axis, source) for history in histories]
        for place, (where, values) in enumerate(curves):
            if len(values):
                drawn.add(place)
                _draw_curve(panel, where, values, palette(place), metric)
        _limit(panel, curves, metric)
        title = metric.name.replace("_", " ")
        named = f"{title} ({printable(source)})" if metric.column is None and source else title
        panel.set_title(named, parse_math=False)  # what others wrote may have dollar signs
        panel.set(xlabel=axis, ylabel=metric.unit)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(round(value))))
        panel.yaxis.set_major_formatter(FuncFormatter(_tick))
        panel.grid(alpha=0.3)
    handles = [_handle(labels[place], palette(place)) for place in sorted(drawn)]
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _tick(value: float, _: int) -> str:
    return short(round(value)) if abs(value) >= 10_000 else f"{value:.4g}"


def as_png(figure: "Figure") -> bytes:
    """The bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _draw_curve(panel: Any, where: Column, values: Column, colour: object, metric: Metric) -> None:
    raw = _extremes(values)
    if metric.column is None:
        panel.plot(where, values, "o-", color=colour, markersize=3, linewidth=1)
        return
    if not metric.smooth:
        panel.plot(where[raw], values[raw], color=colour, linewidth=1.6)
        return
    panel.plot(where[raw], values[raw], color=colour, alpha=0.25, linewidth=0.8)
    line = _line(values)
    every = slice(None, None, max(1, len(line) // (4 * _BUCKETS)))
    panel.plot(where[every], line[every], color=colour, linewidth=1.6)


def _line(values: Column) -> Column:
    return smoothed(values, len(values) // _SMOOTHED_SHARE)


def _extremes(values: Column) -> "np.typing.NDArray[np.int64]":
    """Places of the smallest and the largest value of each stretch, in order; all places of a short curve."""
    size = len(values) // _BUCKETS
    if size < 3:
        return np.arange(len(values))
    whole = values[: size * _BUCKETS].reshape(_BUCKETS, size)
    offsets = np.arange(_BUCKETS) * size
    found = [whole.argmin(axis=1) + offsets, whole.argmax(axis=1) + offsets, np.arange(size * _BUCKETS, len(values))]
    return np.unique(np.concatenate(found))


def value_range(curves: Sequence[tuple[Column, Column]]) -> tuple[float, float] | None:
    """The smallest and the largest smoothed value, those of the first tenth of the axis left out where there are
    others; None without any."""
    end = max((where[-1] for where, _ in curves if len(where)), default=0.0)
    lines = [(where, _line(values)) for where, values in curves]
    later = [line[where > end / _BEGINNING] for where, line in lines]
    known = [each for each in later if len(each)]
    if not known:
        return None
    return min(float(each.min()) for each in known), max(float(each.max()) for each in known)


def _limit(panel: Any, curves: Sequence[tuple[Column, Column]], metric: Metric) -> None:
    """Spikes and the fall at the beginning do not decide how high a panel is."""
    known = [values for _, values in curves if len(values)]
    if metric.from_zero:
        panel.set_ylim(0, 1.15 * max((float(np.quantile(each, 0.99)) for each in known), default=1.0) or 1.0)
    elif (found := value_range(curves)) is not None and found[0] < found[1]:
        margin = 0.1 * (found[1] - found[0])
        panel.set_ylim(found[0] - margin, found[1] + margin)


def _handle(label: str, colour: object) -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linewidth=2, label=label)


def text_curves(
    histories: Sequence[History],
    letters: Sequence[str],
    metric: Metric,
    axis: Axis,
    source: str | None,
    width: int,
    height: int = 14,
) -> list[str]:
    """One metric of all runs for a terminal: a run's letter at a column's mean, `*` where several runs meet.

    Args:
        width: of the lines, in characters.

    Returns:
        The lines; none where no run has two values.
    """
    curves = [curve_of(history, metric, axis, source) for history in histories]
    bounds = value_range(curves)
    if bounds is None or not any(len(values) > 1 for _, values in curves):
        return []
    drawn = [TextCurve(letter, *curve) for letter, curve in zip(letters, curves, strict=True)]
    lines, cut = plot_lines(drawn, bounds, width, height)
    left_out = "; values outside the range are left out" if cut else ""
    return [f"{metric.name.replace('_', ' ')} over {axis}{left_out}", *lines]
