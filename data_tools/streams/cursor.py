"""Samples of a stream by their numbers."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from data_tools.reading.block import Part
from data_tools.samples.source import Sample
from data_tools.streams.position import KnownPositions, StreamPosition
from data_tools.streams.settings import Encode, StreamSettings
from data_tools.streams.text_stream import Chunk, TextStream


class Chunks(Protocol):
    """Samples from a position on, as they are read."""

    def __next__(self) -> Chunk: ...

    def close(self) -> None:
        """Ends reading."""


class Cursor(ABC):
    """Reads on from where it is; goes back from the nearest position that it knows. For one thread at a time.

    Args:
        known: positions of the stream, such as those in checkpoints.
    """

    def __init__(self, known: Iterable[StreamPosition]) -> None:
        self._known = KnownPositions(known)
        self._chunks: Chunks | None = None
        self._ready: Iterator[Sample] = iter(())
        self._number = 0
        """of the next sample"""
        self._left = 0
        """samples of the chunk that are ready"""
        self._behind: StreamPosition | None = None
        """position after the chunk"""

    @abstractmethod
    def _open(self, position: StreamPosition) -> Chunks:
        """The samples from a position on."""

    def take(self, first: int, end: int) -> list[Sample]:
        """The samples [first, end), int64 [read] each.

        Raises:
            EndOfData: there are fewer.
            NoSamples: a whole epoch makes none.
            Refused: a known position is one of another stream.
            TrainyardError: documents cannot be read, or too many of them are bad.
        """
        assert 0 <= first <= end, f"samples {first} to {end}"
        try:
            self._go_to(first)
            return [self._next() for _ in range(first, end)]
        except BaseException:
            self.close()  # a second call reads again from a known position, and raises the same
            raise

    def __getitem__(self, number: int) -> Sample:
        """One sample; raises as `take`."""
        return self.take(number, number + 1)[0]

    def position_for(self, number: int) -> StreamPosition:
        """The last known position at or before a sample: going on from it gives this sample and all after it."""
        return self._known.before(number)

    def close(self) -> None:
        """Ends reading; `take` begins again."""
        if self._chunks is not None:
            self._chunks.close()
        self._chunks, self._ready, self._left, self._behind = None, iter(()), 0, None

    def _go_to(self, number: int) -> None:
        nearest = self._known.before(number)
        if self._chunks is None or number < self._number or nearest.samples > self._number + self._left:
            self._begin(nearest)
        while self._number < number:
            self._next()

    def _begin(self, position: StreamPosition) -> None:
        self.close()
        self._chunks = self._open(position)
        self._number = position.samples

    def _next(self) -> Sample:
        while not self._left:
            self._read_chunk()
        self._left -= 1
        self._number += 1
        sample = next(self._ready)
        if not self._left:
            self._pass()
        return sample

    def _read_chunk(self) -> None:
        assert self._chunks is not None
        chunk = next(self._chunks)
        rows = {name: array.astype(np.int64) for name, array in chunk.arrays.items()}
        samples = [dict(zip(rows, each, strict=True)) for each in zip(*rows.values(), strict=True)]
        assert chunk.first == self._number, f"sample {chunk.first} came in place of {self._number}"
        self._ready, self._left, self._behind = iter(samples), len(samples), chunk.behind
        if not samples:
            self._pass()

    def _pass(self) -> None:
        """Behind the last sample of a chunk."""
        if self._behind is not None:
            self._known.add(self._behind)
            self._behind = None


class StreamCursor(Cursor):
    """A stream that is read in this process.

    Raises:
        TrainyardError: the settings have no sense, or filters need a tokenizer that cannot be had.
    """

    def __init__(
        self, parts: Sequence[Part], encode: Encode, settings: StreamSettings, known: Iterable[StreamPosition] = ()
    ) -> None:
        super().__init__(known)
        self._stream = TextStream(parts, encode, settings)

    def _open(self, position: StreamPosition) -> Chunks:
        return self._stream.chunks(position)
