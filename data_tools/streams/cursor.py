"""Samples of a stream by their numbers."""

from collections.abc import Iterable, Sequence

from data_tools.reading.block import Part
from data_tools.samples.source import Sample
from data_tools.streams.position import StreamPosition
from data_tools.streams.settings import Encode, StreamSettings


class Cursor:
    """Reads on from where it is; goes back from the nearest position that it knows."""

    def take(self, first: int, end: int) -> list[Sample]:
        """The samples [first, end), int64 [read] each.

        Raises:
            EndOfData: there are fewer.
            NoSamples: a whole epoch makes none.
            TrainyardError: documents cannot be read, or too many of them are bad.
        """
        raise NotImplementedError

    def position_for(self, number: int) -> StreamPosition:
        """The last known position at or before a sample: going on from it gives this sample and all behind it."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends reading; within two seconds."""


class StreamCursor(Cursor):
    """A stream that is read in this process."""

    def __init__(
        self, parts: Sequence[Part], encode: Encode, settings: StreamSettings, known: Iterable[StreamPosition] = ()
    ) -> None:
        raise NotImplementedError
