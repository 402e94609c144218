"""What is told while preprocessing works."""

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """How far the work is."""

    stage: str
    documents: int
    tokens: int
    done_bytes: int
    """of the source files, or of tokens that are put in order"""
    total_bytes: int
    """0 where it is not known"""


class Watch(NamedTuple):
    """Who is told how it goes."""

    progress: Callable[[Progress], None]
    tell: Callable[[str], None]
    """one line for people"""
