"""Places in a stream of samples from which it goes on exactly."""

from bisect import bisect_right
from collections.abc import Iterable
from threading import Lock
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1
"""of how documents become samples; raise it with a change of order or cutting, so that older positions are refused"""
MOST_REMEMBERED = 128
"""a position has up to a sample's tokens: 128 of 2,048 as Python integers take about 10 MB"""


class StreamPosition(BaseModel):
    """The beginning of a shuffled block of documents: what is read on from there follows from it alone.

    Documents are read in order, part by part; as many of them as `StreamSettings.block_documents` says are one block,
    which is permuted by (seed, source, epoch, block) and cut. So nothing but this place is needed to go on, and what is
    read again is one block. `StreamPosition()` is the beginning of any stream.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    version: int = VERSION
    key: str = ""
    """`StreamSettings.key` of the stream that it is a place of; empty at the beginning of any"""
    epoch: int = Field(0, ge=0)
    part: int = Field(0, ge=0)
    """place of the part in the epoch's order of parts"""
    position: dict[str, Any] = {}
    """in the part, where its reader begins; see `data_tools.reading.block.Position`"""
    passed: int = Field(0, ge=0)
    """documents behind that place that this block does not have: blocks before took them, or they are reserved"""
    block: int = Field(0, ge=0)
    """number of the block in its epoch"""
    bad: int = Field(0, ge=0)
    """entries of the epoch before `position` that are no documents"""
    by_reference: bool = False
    """whether the tokenizer's own library encodes from here on: a faster one had given other ids"""
    documents: int = Field(0, ge=0)
    """documents of all blocks before"""
    tokens: int = Field(0, ge=0)
    """tokens of all blocks before"""
    samples: int = Field(0, ge=0)
    """samples of all blocks before: the number of this block's first one"""
    carried: list[int] = []
    """tokens of blocks before that belong to this one's first sample, where samples are cut of a stream"""


class KnownPositions:
    """Where reading can go back to: the beginning, positions that were given, and those that reading passed.

    The further these lie after the last one, the larger are their gaps: about a tenth of the distance. Several threads
    may ask.
    """

    def __init__(self, given: Iterable[StreamPosition]) -> None:
        self._given = sorted((StreamPosition(), *given), key=lambda each: (each.samples, each.documents))
        self._passed: list[StreamPosition] = []
        self._lock = Lock()

    def add(self, position: StreamPosition) -> None:
        """Remembers a position that reading passed."""
        with self._lock:
            place = bisect_right(self._passed, position.samples, key=_samples)
            if place and self._passed[place - 1].samples == position.samples:
                self._passed[place - 1] = position  # after a block without a sample: less is read again
            else:
                self._passed.insert(place, position)
            if len(self._passed) > MOST_REMEMBERED:
                del self._passed[self._least_missed()]

    def _least_missed(self) -> int:
        """Place of the one without which the gap is smallest beside its distance from the last one."""
        samples = [each.samples for each in self._passed]
        gaps = [
            (behind - before) / (samples[-1] - here)
            for before, here, behind in zip(samples, samples[1:-1], samples[2:], strict=False)
        ]
        return 1 + gaps.index(min(gaps))

    def before(self, number: int) -> StreamPosition:
        """The last one at or before a sample."""
        with self._lock:
            found = [each for each in (_last(self._given, number), _last(self._passed, number)) if each is not None]
            return max(found, key=lambda each: (each.samples, each.documents))


def _samples(position: StreamPosition) -> int:
    return position.samples


def _last(ascending: list[StreamPosition], number: int) -> StreamPosition | None:
    place = bisect_right(ascending, number, key=_samples)
    return ascending[place - 1] if place else None
