"""Documents in blocks of equal numbers, in the order in which they are read, from any place on."""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from data_tools.encoding.proof import DifferentIds
from data_tools.reading.block import BEGINNING, Part, Position
from data_tools.streams.documents import TokenDocuments, documents_of, together
from data_tools.streams.end_of_data import NoSamples
from data_tools.streams.feed import EpochEnd, Feed, Read
from data_tools.streams.settings import Encode, StreamSettings
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted


class Place(NamedTuple):
    """Between two documents, where a block begins; see `StreamPosition`."""

    epoch: int = 0
    part: int = 0
    position: Position = BEGINNING
    passed: int = 0
    block: int = 0
    bad: int = 0
    by_reference: bool = False


class DocumentBlock(NamedTuple):
    """Documents that are put in order and cut together."""

    documents: TokenDocuments
    place: Place
    """where it begins"""
    behind: Place
    """where the next one begins, unless the epoch ends"""


class DocumentBlocks:
    """Reads blocks of `settings.block_documents`; an epoch's last one has what is left."""

    def __init__(self, parts: Sequence[Part], encode: Encode, settings: StreamSettings) -> None:
        self._parts = parts
        self._encode = encode
        self._settings = settings

    def read(self, start: Place) -> Iterator[DocumentBlock]:
        """The blocks after a place, up to the end of `max_epochs`.

        Where a fast library gives other ids than the tokenizer's own, the block that is being filled begins again with
        that one, and so does all behind it; places behind it say so. Reading that begins before it may find the
        document with up to 1 MB of others in front of it, as its part is cut there: blocks of these are the library's
        in one reading and the other's in another, which matters only where it is wrong about them too, unnoticed.

        Raises:
            NoSamples: an epoch has no document.
            Damaged: a part is cut off, or not of its format.
            TrainyardError: a part cannot be read, or has too many entries that are no documents.
        """
        try:
            for block in self._read(start):
                start = block.behind
                yield block
                del block  # before the next one is read
            return
        except DifferentIds as different:
            self._tell(start, different)
        yield from self._read(start._replace(by_reference=True))

    def _read(self, start: Place) -> Iterator[DocumentBlock]:
        begin = here = start
        held: list[TokenDocuments] = []
        room = self._settings.block_documents
        feed = Feed(self._parts, self._encode, self._settings)
        for read in feed.read(start.epoch, start.part, start.position, start.by_reference):
            if isinstance(read, EpochEnd):
                if held:
                    yield DocumentBlock(together(held), begin, here._replace(block=begin.block + 1))
                elif begin == Place(read.epoch, by_reference=start.by_reference):
                    raise self._empty()
                begin = here = Place(read.epoch + 1, by_reference=start.by_reference)
                held, room = [], self._settings.block_documents
                continue
            here, documents = self._arrive(here, read), documents_of(read.texts, self._settings.answers)
            count = len(documents.lengths)
            after = self._leave(here, read, count)
            taken = min(here.passed, count)
            while taken < count:
                end = min(taken + room, count)
                held.append(documents.between(taken, end))
                taken, room = end, room - (end - taken)
                if not room:
                    behind = after if taken == count else here._replace(passed=taken)
                    behind = behind._replace(block=begin.block + 1)
                    found = DocumentBlock(together(held), begin, behind)
                    begin, held, room = behind, [], self._settings.block_documents  # held once, not twice
                    yield found
            here = after

    def _arrive(self, here: Place, read: Read) -> Place:
        """The place in front of a block that was read, and how many of its documents others have."""
        passed = here.passed if here.part == read.part else 0
        if not read.before:  # the part begins
            passed = max(passed, self._settings.reserved_of(read.given))
        return here._replace(part=read.part, position=read.before, passed=passed)

    def _leave(self, here: Place, read: Read, documents: int) -> Place:
        """The place after it."""
        bad = count_bad(self._settings, here.epoch, here.bad, read.bad)
        return here._replace(position=read.behind, passed=max(0, here.passed - documents), bad=bad)

    def _tell(self, begin: Place, different: DifferentIds) -> None:
        print(
            f"note: source {printable(self._settings.source)}: {different.told}; from its block on (block "
            f"{begin.block + 1:,} of epoch {begin.epoch + 1:,}) the tokenizer's own library encodes",
            file=sys.stderr,
            flush=True,
        )

    def _empty(self) -> NoSamples:
        held_back = sum(self._settings.reserved)
        reserved = f" but the {held_back:,} that are reserved for evaluation" if held_back else ""
        parts = ", ".join(printable(part.origin) for part in self._parts[:3]) or "no files"
        return NoSamples(
            f"source {printable(self._settings.source)} has no documents{reserved}: {parts}"
            f"{', ...' if len(self._parts) > 3 else ''}; give files that have some"
        )


def one_ahead(blocks: Iterator[DocumentBlock]) -> Iterator[DocumentBlock]:
    """The same, each read by a thread while the one before is used: 10,000 documents of 2,000 tokens take seconds."""
    with ThreadPoolExecutor(1, "reads a block ahead") as thread:
        following = thread.submit(next, blocks, None)
        while (block := following.result()) is not None:
            following = thread.submit(next, blocks, None)
            yield block
            del block  # before another one is there


def count_bad(settings: StreamSettings, epoch: int, before: int, bad: Sequence[str]) -> int:
    """How many entries of an epoch are no documents, with those of one more block.

    Args:
        before: those of the blocks before.
        bad: what is wrong with each of the block's.

    Raises:
        TrainyardError: they are more than may be; names the first that is too many.
    """
    count = before + len(bad)
    if count > settings.max_bad:
        raise TrainyardError(
            f"{bad[settings.max_bad - before]} (epoch {epoch + 1:,} of source {printable(settings.source)} has at "
            f"least {counted(count, 'such entry', 'such entries')}, and max_bad is {settings.max_bad:,}: correct them, "
            "or allow more)"
        )
    return count
