"""A stream that is read in a process of its own, ahead of what is taken."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from data_tools.reading.block import Part
from data_tools.streams.cursor import Cursor
from data_tools.streams.position import StreamPosition
from data_tools.streams.settings import Encode, StreamSettings


@dataclass(frozen=True)
class StreamRequest:
    """What a reader process does. It gets it by pickle, so that all of it is plain: no closures, no open files."""

    settings: StreamSettings
    open_parts: Callable[[], Sequence[Part]]
    """such as functools.partial(parts_of, ...)"""
    open_encoding: Callable[[int], AbstractContextManager[Encode]]
    """takes the number of workers"""


class StreamReader(Cursor):
    """See `StreamCursor`; a process reads up to `prefetch_samples` ahead."""

    def __init__(
        self,
        request: StreamRequest,
        start: StreamPosition,
        prefetch_samples: int,
        workers: int,
        known: Iterable[StreamPosition] = (),
    ) -> None:
        raise NotImplementedError
