"""Sizes in bytes and counts of things, for people."""

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def readable(size: float) -> str:
    """Bytes in three digits and a decimal unit: 1316605952 is 1.32 GB, 999900000 is 1 GB."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:  # what would be written as 1000 of a unit
        value, unit = value / 1000, unit + 1
    if unit == 0 or value >= 100:
        return f"{value:.0f} {_UNITS[unit]}"
    return f"{value:.3g} {_UNITS[unit]}"


def counted(number: int, thing: str) -> str:
    """A number with its noun: 1 problem, 2 problems, 1,000 entries."""
    plural = f"{thing[:-1]}ies" if thing.endswith("y") and thing[-2:-1] not in "aeiou" else f"{thing}s"
    return f"{number:,} {thing if number == 1 else plural}"
