"""Curves as text, for a terminal: a sign for each curve, over an axis that begins at 0."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_patches.sizes import short

_LEAST_WIDTH = 40
_LEVEL = "-"
"""of a value that has no place on the axis, such as what chance gives"""


@dataclass(frozen=True)
class TextCurve:
    """What is drawn for one thing."""

    sign: str
    where: NDArray[np.float64]
    """on the axis, none below 0"""
    values: NDArray[np.float64]


def plot_lines(
    curves: Sequence[TextCurve],
    bounds: tuple[float, float],
    width: int,
    height: int,
    levels: Sequence[float] = (),
) -> tuple[list[str], bool]:
    """Draws curves: a curve's sign at a column's mean, `*` where several meet.

    Args:
        bounds: the smallest and the largest value that are shown.
        width: of the lines, in characters.
        height: lines of the plot, without the axis.
        levels: values at which a line is drawn across.

    Returns:
        The lines, the axis with its last place beneath them, and whether values lie outside the bounds.
    """
    low, high = bounds
    span = (high - low) or 1.0
    end = max((float(curve.where.max()) for curve in curves if len(curve.where)), default=0.0)
    labels = [f"{high - span * row / (height - 1):.4g}" for row in range(height)]
    margin = max(map(len, labels))
    columns = max(_LEAST_WIDTH, width) - margin - 1
    grid = [[" "] * columns for _ in range(height)]
    cut = False

    def row_of(value: float) -> int:
        return round((high - value) / span * (height - 1))

    for level in levels:
        if 0 <= (row := row_of(level)) < height:
            grid[row] = [_LEVEL] * columns
    for curve in curves:
        places = np.rint(curve.where / (end or 1.0) * (columns - 1)).astype(np.int64)
        counts = np.bincount(places, minlength=columns)
        sums = np.bincount(places, weights=curve.values, minlength=columns)
        for place in np.flatnonzero(counts):
            row = row_of(sums[place] / counts[place])
            cut = cut or not 0 <= row < height
            if 0 <= row < height:
                grid[row][place] = curve.sign if grid[row][place] in (" ", _LEVEL) else "*"
    lines = [f"{label:>{margin}} {''.join(row)}".rstrip() for label, row in zip(labels, grid, strict=True)]
    return [*lines, f"{'':>{margin}} 0{short(round(end)):>{columns - 1}}"], cut
