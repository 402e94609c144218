"""How long a measurement is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Turns:
    """How long a measurement is."""

    alternations: int
    """measured turns of each side"""
    warmup: int
    """turns of each side before them, left out"""
    steps: int
    """optimizer steps in a turn"""
