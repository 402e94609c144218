"""Sizes in bytes and numbers of things, for people."""

import re
from collections.abc import Sequence

from megatron_patches.errors import TrainyardError

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_NAMED = 5


def readable(size: float) -> str:
    """Bytes in three digits and a decimal unit: 1316605952 is 1.32 GB, 999900000 is 1 GB."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:  # what would be written as 1000 of a unit
        value, unit = value / 1000, unit + 1
    if unit == 0 or value >= 100:
        return f"{value:.0f} {_UNITS[unit]}"
    return f"{value:.3g} {_UNITS[unit]}"


def parse_size(text: str, option: str) -> float | None:
    """Bytes of a size such as 50M or 2G; None for an empty text.

    Raises:
        TrainyardError: it is not formed so, or is nothing.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKMGT]?)B?", text)
    number = float(found[1]) * 1000 ** " kMGT".index((found[2] or " ").replace("K", "k")) if found else 0
    if number <= 0:
        raise TrainyardError(f"{option} {text}: give a size such as 500k, 50M or 2G")
    return number


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: 1 problem, 2 problems, 1,000 copies.

    Args:
        plural: where it is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def first_of(numbers: Sequence[int]) -> str:
    """Numbers of things, such as steps: the first five, and how many more there are."""
    more = len(numbers) - _NAMED
    return ", ".join(map(str, numbers[:_NAMED])) + (f" and {more:,} more" if more > 0 else "")


def short(number: int) -> str:
    """Three digits and a unit: 1316605952 is 1.32B."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= 0.9995 * size:  # what three digits round up to the unit
            return f"{number / size:.3g}{unit}"
    return str(number)
