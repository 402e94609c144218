"""Learning rates over the steps of a run as a small picture in characters. Torch-free."""

from collections.abc import Callable, Mapping

HEIGHT = 8
"""lines between the axis and the highest rate"""
_LABEL = 9


def rate_plot(rate: Callable[[int], float], last: int, marks: Mapping[int, str], width: int = 80) -> list[str]:
    """Lines of at most `width` characters, plain ASCII; rates on a scale from 0, steps from 1 to `last`.

    Args:
        rate: the rate of a step; a column shows that of one step.
        marks: steps at which an upright line stands, each with the letters beneath it.
    """
    columns = max(20, width - _LABEL - 1)

    def column(step: int) -> int:
        return round((step - 1) / max(1, last - 1) * (columns - 1))

    rates = [rate(1 + round(number * (last - 1) / (columns - 1))) for number in range(columns)]
    highest = max(rates) or 1.0
    grid = [[" "] * columns for _ in range(HEIGHT + 1)]
    letters = [" "] * columns
    for step, mark in marks.items():
        first = min(column(step), columns - len(mark))
        letters[first : first + len(mark)] = mark
        for line in grid:
            line[column(step)] = "|"
    for number, each in enumerate(rates):
        grid[round((highest - each) / highest * HEIGHT)][number] = "*"
    labels = [f"{highest * (HEIGHT - number) / HEIGHT:.2e}" if number % 4 == 0 else "" for number in range(HEIGHT + 1)]
    lines = [f"{label:>{_LABEL}} {''.join(line)}".rstrip() for label, line in zip(labels, grid, strict=True)]
    axis = f"{'step':>{_LABEL}} 1{f'{last:,}':>{columns - 1}}"
    return [*lines, *([f"{'':>{_LABEL}} {''.join(letters)}".rstrip()] if marks else []), axis]
