"""Names of runs and families: `tr<N>[letter]-<size>-<description>` in a folder `tr<N>-<description>`."""

import re
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.foreign.names import is_name

_RUN = re.compile(r"tr(0|[1-9]\d*)([a-z]?)-(\d+)([KMBT])(\d*)-([A-Za-z0-9][A-Za-z0-9.-]*)", re.ASCII)
_FAMILY = re.compile(r"tr(0|[1-9]\d*)-[A-Za-z0-9][A-Za-z0-9.-]*", re.ASCII)
_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}

RUN_PATTERN = "tr<N>[letter]-<size>-<description>, with a size such as 350M or 1B3: tr3d-1B3-more-warmup"
FAMILY_PATTERN = "tr<N>-<description>, for example tr3-1B3-baseline"


@dataclass(frozen=True)
class RunName:
    """A run's name taken apart."""

    number: int
    """number of the family"""
    letter: str
    """variant within the family, or empty"""
    size: str
    """as written: 4M, 125M, 1B3"""
    parameters: float
    """what the size says: 1B3 is 1.3e9"""
    family: str
    """name of a new family that the run would be the first of"""


def parse_run_name(name: str) -> RunName | None:
    """A run's name taken apart; None if it is not formed as names are."""
    found = _RUN.fullmatch(name)
    if found is None or not is_name(name):
        return None
    number, letter, whole, unit, fraction, description = found.groups()
    size = f"{whole}{unit}{fraction}"
    parameters = float(f"{whole}.{fraction or 0}") * _UNITS[unit]
    return RunName(int(number), letter, size, parameters, f"tr{number}-{size}-{description}")


def family_number(name: str) -> int | None:
    """The number in a family folder's name; None if it is not formed as those are."""
    found = _FAMILY.fullmatch(name)
    return int(found[1]) if found else None


def order(path: Path) -> tuple[float, str]:
    """Sorts runs and families by number, then by name: tr3 before tr20, and a name before those it begins."""
    name = path.name.removesuffix(".yaml")
    digits = re.match(r"tr([0-9]{1,9})", name)
    return (int(digits[1]) if digits else float("inf"), name)
