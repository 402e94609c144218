"""Tables: whole lines in a pipe or a file, and on a terminal as wide as it is, without cutting or breaking a word."""

import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence

from megatron_patches.foreign.printable import printable

_GAP = "  "
_INDENT = 4
_READABLE = 24
"""a text that is wrapped in its column has so many characters a line at least"""
_LEAST = 20
"""columns of a terminal that a text beneath its row has at least, however narrow the terminal is"""


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> None:
    """Prints columns aligned; what others wrote is escaped.

    In a pipe every row is one line. On a terminal that is too narrow texts are wrapped between words; where that is not
    enough, the last columns, which matter least, stand beneath their row, each with its title. The first column is
    what a row is called: it stays as it is, so that it can be copied.

    Args:
        numbers: columns that are aligned at the right.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table_lines(head, rows, width, numbers):
        print(line)


def print_matrix(head: Sequence[str], rows: Sequence[Sequence[str]], fixed: int, numbers: Iterable[int] = ()) -> None:
    """Prints a table of which all columns are alike: on a terminal those without room stand in a further table.

    Args:
        fixed: so many columns, the first ones, say what a row is, and stand in every table.
        numbers: columns that are aligned at the right.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in matrix_lines(head, rows, width, fixed, numbers):
        print(line)


def matrix_lines(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, fixed: int, numbers: Iterable[int] = ()
) -> list[str]:
    """The lines of such tables, an empty one between two.

    Args:
        width: of the terminal, in characters; None means that there is no limit, and one table.
    """
    right = set(numbers)
    whole = [max(_width(printable(text)) for text in column) for column in zip(head, *rows, strict=True)]
    blocks: list[list[int]] = [[]]
    for number in range(fixed, len(head)):
        taken = [*range(fixed), *blocks[-1], number]
        if width is not None and blocks[-1] and _total([whole[each] for each in taken]) > width:
            blocks.append([])
        blocks[-1].append(number)
    lines: list[str] = []
    for block in blocks:
        shown = [*range(fixed), *block]
        chosen = [[row[number] for number in shown] for row in rows]
        aligned = [place for place, number in enumerate(shown) if number in right]
        lines += [*([""] if lines else []), *table_lines([head[number] for number in shown], chosen, width, aligned)]
    return lines


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Prints what is known of one thing, a name and its value a line; what others wrote is escaped.

    Lines are whole on a terminal too, which breaks them itself: so a hash can be copied.
    """
    width = max((_width(name) for name, _ in facts), default=0)
    for name, value in facts:
        print(f"{name}{_padding(name, width)}{_GAP}{printable(value)}")


def table_lines(
    head: Sequence[str], rows: Iterable[Sequence[str]], width: int | None, numbers: Iterable[int] = ()
) -> list[str]:
    """The lines of a table.

    Args:
        width: of the terminal, in characters; None means that there is no limit.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    right = set(numbers)
    whole = [max(_width(text) for text in column) for column in zip(head, *cells, strict=True)]
    beside = len(head)
    widths = whole
    if width is not None and _total(whole) > width:
        least = [
            wanted if number == 0 or number in right else max(min(wanted, _READABLE), _longest_word(column))
            for number, (wanted, column) in enumerate(zip(whole, zip(head, *cells, strict=True), strict=True))
        ]
        while beside > 1 and _total(least[:beside]) > width:
            beside -= 1
        widths = _widened(least[:beside], whole[:beside], width)
    lines = _row(head[:beside], widths, right)
    for row in cells:
        lines += _row(row[:beside], widths, right)
        for title, text in zip(head[beside:], row[beside:], strict=True):
            lines += _beneath(title, text, width or 0) if text else []
    return lines


def _widened(least: list[int], whole: list[int], width: int) -> list[int]:
    """Gives the room that is left to the columns that want more, the first ones first."""
    widths = list(least)
    for number in range(len(widths)):
        widths[number] += min(whole[number] - widths[number], max(0, width - _total(widths)))
    return widths


def _row(cells: Sequence[str], widths: Sequence[int], right: set[int]) -> list[str]:
    columns = [_wrapped(text, width) for text, width in zip(cells, widths, strict=True)]
    lines = []
    for height in range(max(len(column) for column in columns)):
        parts = [column[height] if height < len(column) else "" for column in columns]
        padded = [
            _padding(text, width) + text if number in right else text + _padding(text, width)
            for number, (text, width) in enumerate(zip(parts, widths, strict=True))
        ]
        lines.append(_GAP.join(padded).rstrip())
    return lines


def _beneath(title: str, text: str, width: int) -> list[str]:
    """Between words alone: an address that is longer than the line stays in one piece."""
    wrapper = textwrap.TextWrapper(
        max(width, _INDENT + _LEAST), initial_indent=" " * _INDENT, subsequent_indent=" " * (_INDENT + 2),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return wrapper.wrap(f"{title}: {text}")


def _wrapped(text: str, width: int) -> list[str]:
    if _width(text) <= width:
        return [text]
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and _width(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line]


def _padding(text: str, width: int) -> str:
    return " " * (width - _width(text))


def _longest_word(column: Sequence[str]) -> int:
    return max((_width(word) for text in column for word in text.split(" ")), default=0)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _width(text: str) -> int:
    """Cells of a terminal: Chinese, Japanese and Korean characters have two, accents over other letters none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
