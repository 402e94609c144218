"""A heat map as a picture: cells coloured by their numbers, what lies within the noise pale and hatched."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megatron_patches.sizes import short
from tools.evaluation_views.curves import Axis
from tools.evaluation_views.heat_map.numbers import Cell, Heat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = (0.46, 0.2)
"""inches of a cell that has room for its number"""
_MOST = (14.0, 30.0)
"""inches of all cells"""
_ROOM = (0.36, 0.13)
"""inches that a number needs"""
_LEAST = (3.0, 1.9)
"""inches of all cells, for what stands around them"""
_PALE = 0.6
"""share of white in a colour that is within the noise"""
_GREY = "#666666"
_FAINT = "#555555"
_UPRIGHT = 6
"""characters of a column's name that stand beside each other; longer ones are turned"""


def draw_heat(heat: Heat, caption: Sequence[str], axis: Axis) -> "Figure":
    """A figure with the map, its colour bar, and the caption beneath.

    Args:
        axis: what a column is called by; a checkpoint whose tokens are not known by its step.
    """
    from matplotlib.figure import Figure

    down, across = len(heat.rows), len(heat.places)
    wide, high = (min(most, each * size) for most, each, size in zip(_MOST, (across, down), _CELL, strict=True))
    wide, high = max(wide, _LEAST[0]), max(high, _LEAST[1])
    longest = max(len(row.name) for row in heat.rows)
    figure = Figure(figsize=(wide + 0.075 * longest + 1.6, high + 1.2 + 0.18 * len(caption)), layout="constrained")
    axes = figure.add_subplot()
    numbers = np.array([[np.nan if cell is None else cell.shown for cell in row.cells] for row in heat.rows])
    mesh = axes.pcolormesh(np.ma.masked_invalid(numbers), **_colours(heat, numbers))
    axes.set_facecolor("#eeeeee")  # of what was not evaluated
    roomy = wide / across >= _ROOM[0] and high / down >= _ROOM[1]
    _pale(axes, heat, hatched=roomy)
    if roomy:
        _write_numbers(axes, heat, mesh)
    _name_axes(axes, heat, axis, wide)
    bar = figure.colorbar(mesh, ax=axes, shrink=min(1.0, 4 / high), aspect=25, pad=0.02)
    bar.set_label(heat.unit if heat.relative_to == "nothing" else f"difference, {heat.unit}", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    axes.set_title(heat.title, fontsize=10, parse_math=False)
    figure.supxlabel("\n".join(caption), fontsize=8, color=_GREY, parse_math=False)
    return figure


def _colours(heat: Heat, numbers: NDArray[np.float64]) -> dict[str, Any]:
    """Blue is better, red is worse, white no difference; of values themselves, which have no middle, one hue."""
    if heat.relative_to == "nothing":
        return {"cmap": "cividis", "vmin": np.nanmin(numbers), "vmax": np.nanmax(numbers)}
    palette = "RdBu" if heat.higher_is_better else "RdBu_r"
    return {"cmap": palette, "vmin": -heat.largest, "vmax": heat.largest}


def _pale(axes: Any, heat: Heat, hatched: bool) -> None:
    """Small cells are not hatched: they would be nothing but hatches."""
    noise = np.array([[cell is not None and cell.within_noise for cell in row.cells] for row in heat.rows])
    if not noise.any():
        return
    veil = np.zeros((*noise.shape, 4))
    veil[noise] = (1, 1, 1, _PALE)
    axes.imshow(veil, extent=(0, noise.shape[1], noise.shape[0], 0), aspect="auto", interpolation="nearest", zorder=2)
    if hatched:
        unsure = np.ma.masked_where(~noise, np.zeros(noise.shape))
        axes.pcolor(unsure, hatch="////", facecolor="none", edgecolor="#00000022", linewidth=0, zorder=2)


def _write_numbers(axes: Any, heat: Heat, mesh: Any) -> None:
    for down, row in enumerate(heat.rows):
        for across, cell in enumerate(row.cells):
            if cell is not None:
                axes.text(
                    across + 0.5, down + 0.5, written(heat, cell), ha="center", va="center", fontsize=7,
                    color=_ink(mesh, cell), zorder=3,
                )  # fmt: skip


def _ink(mesh: Any, cell: Cell) -> str:
    if cell.within_noise:
        return _FAINT
    red, green, blue, _ = mesh.cmap(mesh.norm(cell.shown))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"


def written(heat: Heat, cell: Cell) -> str:
    """A cell's number: signed where it is a difference."""
    places = 1 if heat.largest >= 1 else 3
    shown = round(cell.shown, places) + 0.0  # no -0.0
    return f"{shown:.{places}f}" if heat.relative_to == "nothing" else f"{shown:+.{places}f}"


def column_names(heat: Heat, axis: Axis) -> list[str]:
    """What each column is called."""
    return [
        short(tokens) if axis == "tokens" and tokens is not None else short_step(place.step)
        for place, tokens in zip(heat.places, heat.tokens, strict=True)
    ]


def short_step(step: int) -> str:
    """A step in full where it is short: a column has room for six digits."""
    return str(step) if step < 1_000_000 else short(step)


def _name_axes(axes: Any, heat: Heat, axis: Axis, wide: float) -> None:
    names = column_names(heat, axis)
    every = max(1, round(_CELL[0] / (wide / len(names))))
    shown = range(0, len(names), every)
    axes.set_xticks([place + 0.5 for place in shown], [names[place] for place in shown], fontsize=8)
    if max(map(len, names)) > _UPRIGHT:
        axes.tick_params(axis="x", labelrotation=90)
    axes.set_xlabel(axis, fontsize=9)
    rows = axes.set_yticks([row + 0.5 for row in range(len(heat.rows))], [row.name for row in heat.rows], fontsize=8)
    for tick, row in zip(rows, heat.rows, strict=True):
        tick.label1.set_parse_math(False)
        tick.label1.set_fontweight("normal" if row.part else "bold")
    axes.set_ylim(len(heat.rows), 0)
    axes.set_xlim(0, len(names))
    axes.tick_params(length=0)
