"""How long a measurement is."""

from dataclasses import dataclass

PROFILED_STEPS = 3
"""after the measured turns, where a profile is asked for"""


@dataclass(frozen=True)
class Turns:
    """How long a measurement is."""

    alternations: int
    """measured turns of each side"""
    warmup: int
    """turns of each side before them, left out"""
    steps: int
    """optimizer steps in a turn"""
