"""Blocks of a stream's parts, epoch by epoch, as an encoder takes them: ahead of what comes back."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import JsonValue

from data_tools.reading.block import BEGINNING, Block, Part, Position
from data_tools.streams.order import order_of_parts
from data_tools.streams.settings import Encode, StreamSettings
from data_tools.text.document_encoding import EncodedTexts


class Read(NamedTuple):
    """The documents of one block."""

    epoch: int
    part: int
    """place in the epoch's order"""
    given: int
    """place of the part in the given order"""
    before: Mapping[str, JsonValue]
    """position in front of the block"""
    behind: Mapping[str, JsonValue]
    texts: EncodedTexts
    bad: Sequence[str]
    """what is wrong with each entry that is no document"""


class EpochEnd(NamedTuple):
    """All parts of an epoch are read."""

    epoch: int


class _Fed(NamedTuple):
    """Where a block lies that the encoder was given."""

    epoch: int
    part: int
    given: int
    before: Position


class Feed:
    """What is read from a place on: documents, and ends of epochs, in order.

    An error of a part comes after what was read before it, however far ahead the encoder reads. It stops after
    `max_epochs`, and after an epoch without a block, which would be followed by others without an end.
    """

    def __init__(self, parts: Sequence[Part], encode: Encode, settings: StreamSettings) -> None:
        self._parts = parts
        self._encode = encode
        self._settings = settings
        self._fed: deque[_Fed | EpochEnd] = deque()
        self._error: Exception | None = None

    def read(self, epoch: int, part: int, position: Position, by_reference: bool = False) -> Iterator[Read | EpochEnd]:
        """From a position in the part at a place of an epoch's order.

        Raises:
            DifferentIds: what encodes gives other ids than the tokenizer's own library, and that was not asked for.
            Damaged: a part is cut off, or not of its format.
            TrainyardError: a part cannot be read.
        """
        origins = frozenset(each.origin for each in self._parts) if by_reference else ()
        for block, encoded in self._encode(self._blocks(epoch, part, position), by_reference=origins):
            yield from self._ends()
            fed = self._fed.popleft()
            assert isinstance(fed, _Fed)
            bad = [each.reason for each in encoded.bad]
            yield Read(fed.epoch, fed.part, fed.given, fed.before, block.position, encoded.texts[0], bad)
        yield from self._ends()
        if self._error is not None:
            raise self._error

    def _ends(self) -> Iterator[EpochEnd]:
        while self._fed and isinstance(end := self._fed[0], EpochEnd):
            self._fed.popleft()
            yield end

    def _blocks(self, epoch: int, part: int, position: Position) -> Iterator[Block]:
        """In the encoder's time; whatever goes wrong is kept for the reader's."""
        try:
            from_beginning = part == 0 and not position
            while self._settings.max_epochs is None or epoch < self._settings.max_epochs:
                blocks = 0
                for block in self._of_epoch(epoch, part, position):
                    yield block
                    blocks += 1
                self._fed.append(EpochEnd(epoch))
                if from_beginning and not blocks:
                    return
                epoch, part, position, from_beginning = epoch + 1, 0, BEGINNING, True
        except Exception as error:  # noqa: BLE001  raised again in its place
            self._error = error

    def _of_epoch(self, epoch: int, part: int, position: Position) -> Iterator[Block]:
        order = order_of_parts(self._settings, len(self._parts), epoch) if self._parts else []
        for place in range(part, len(order)):
            before = position if place == part else BEGINNING
            for block in self._parts[order[place]].blocks(before):
                self._fed.append(_Fed(epoch, place, order[place], before))
                yield block
                before = block.position
