"""What is told while preprocessing works."""

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """How far the work is."""

    stage: str
    documents: int
    tokens: int
    done_bytes: int
    """bytes of the source files; while documents are put in order, bytes of tokens"""
    total_bytes: int
    """0 where it is not known"""


class Watch(NamedTuple):
    """Who is told how it goes."""

    progress: Callable[[Progress], None]
    tell: Callable[[str], None]
    """one line for people"""
