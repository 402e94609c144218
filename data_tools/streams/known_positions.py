"""Positions of a stream that are remembered, so that reading goes back without beginning at the beginning."""

from bisect import bisect_right
from collections.abc import Iterable
from threading import Lock

from data_tools.streams.position import StreamPosition

MOST = 128
"""a position has up to a sample's tokens: 128 of 2,048 as Python integers take about 10 MB"""


class KnownPositions:
    """The beginning, positions that were given, and those that reading passed: these are dense near its end and sparse
    far behind it. May be asked by several threads.
    """

    def __init__(self, given: Iterable[StreamPosition]) -> None:
        self._given = sorted((StreamPosition(), *given), key=_samples)
        self._passed: list[StreamPosition] = []
        self._lock = Lock()

    def add(self, position: StreamPosition) -> None:
        """Remembers a position that reading passed."""
        with self._lock:
            place = bisect_right(self._passed, position.samples, key=_samples)
            if place and self._passed[place - 1].samples == position.samples:
                self._passed[place - 1] = position  # behind a block without a sample: less is read again
            else:
                self._passed.insert(place, position)
            if len(self._passed) > MOST:
                # every other one of the older half goes, so that gaps double with the distance
                self._passed = self._passed[: MOST // 2 : 2] + self._passed[MOST // 2 :]

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
