"""Parts whose documents are lists of token ids, cut into blocks anywhere, and an encoder of these."""

import json
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from data_tools.encoding.encoded_block import BadEntry, EncodedBlock
from data_tools.plans.samples_config import SAMPLES
from data_tools.reading.block import BEGINNING, Block, PartContent, Position
from data_tools.samples.lengths import SampleLengths
from data_tools.streams.settings import Encode, StreamSettings
from data_tools.text.document_encoding import EncodedTexts
from megatron_patches.errors import TrainyardError

Document = Sequence[Any] | None
"""token ids; None is an entry that is no document; several sequences are written `[[...], [...]]`"""


@dataclass
class MemoryPart:
    """Entries in memory; a position is the number of entries before it."""

    name: str
    entries: Sequence[Document]
    cuts: int = 0
    """seed of where blocks are cut"""
    most: int = 9
    """entries of a block"""
    fails_behind: int | None = None
    size: int = 0
    stretch: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.origin = f"/data/{self.name}"

    def blocks(self, after: Position = BEGINNING, hashed: bool = False) -> Iterator[Block]:
        first = after.get("entry", 0)
        assert isinstance(first, int)
        random = Random(self.cuts)
        while first < len(self.entries):
            end = min(first + random.randint(1, self.most), len(self.entries))
            if self.fails_behind is not None and end > self.fails_behind:
                raise OSError(f"{self.origin} cannot be read after entry {self.fails_behind}")
            content = json.dumps(self.entries[first:end]).encode()
            yield Block("lines", content, self.origin, "line", first + 1, end - first, {"entry": end}, 0)
            first = end

    def content(self) -> PartContent:
        raise AssertionError("streams ask no part for its hash")


def encode(
    blocks: Iterable[Block], by_reference: Collection[str] = (), ahead: int = 0
) -> Iterator[tuple[Block, EncodedBlock]]:
    """Reads up to `ahead` blocks more than it gives, as a pool does."""
    waiting: list[Block] = []
    for block in blocks:
        waiting.append(block)
        if len(waiting) > ahead:
            yield _encoded(waiting.pop(0))
    yield from map(_encoded, waiting)


def _encoded(block: Block) -> tuple[Block, EncodedBlock]:
    entries, texts = _decoded(bytes(block.content))
    told = [
        BadEntry(number, f"{block.origin}, line {number} is bad")
        for number, entry in enumerate(entries, block.first)
        if entry is None
    ]
    return block, EncodedBlock([texts], told, 0)


@lru_cache(1000)
def _decoded(content: bytes) -> tuple[list[Document], EncodedTexts]:
    """Kept: histories read the same blocks again and again."""
    entries: list[Document] = json.loads(content)
    return entries, encoded_texts([each for each in entries if each is not None])


def encoded_texts(documents: Sequence[Sequence[Any]]) -> EncodedTexts:
    """Of token ids, or of sequences of them."""
    sequences = None
    if any(each and isinstance(each[0], list) for each in documents):
        nested = [each if each and isinstance(each[0], list) else [each] for each in documents]
        sequences = np.array([len(document) for document in nested], dtype=np.int64)
        documents = list(chain.from_iterable(nested))
    lengths = np.array(list(map(len, documents)), dtype=np.int64)
    ids = np.array(list(chain.from_iterable(documents)), dtype=np.int32)
    return EncodedTexts(ids, lengths, np.empty(0, dtype=np.int64), sequences)


def reading_ahead(blocks: int) -> Encode:
    return partial(encode, ahead=blocks)


def open_encoding(workers: int) -> AbstractContextManager[Encode]:
    """For a reader process: as many blocks ahead as there would be workers."""
    return nullcontext(reading_ahead(workers))


def settings_of(samples: object, read: int = 8, stride: int | None = None, **more: object) -> StreamSettings:
    """Lengths of next-token prediction, unless samples are at another distance."""
    lengths = SampleLengths(read, stride or read - 1, (("tokens", read - 1),), read - 1)
    return StreamSettings(samples=SAMPLES.validate(samples), lengths=lengths, **{"seed": 1, **more})  # type: ignore[arg-type]


def parts_of(random: Random, number: int, most: int = 12, longest: int = 12) -> list[MemoryPart]:
    """Parts of 0 to `most` documents of 0 to `longest` tokens, each of which no other document has."""
    token, parts = 1, []
    for name in range(number):
        entries = []
        for _ in range(random.randint(0, most)):
            length = random.randint(0, longest)
            entries.append(list(range(token, token + length)))
            token += length
        parts.append(MemoryPart(f"part{name}", entries))
    return parts


@dataclass
class Accident(MemoryPart):
    """A part at whose end something happens to the process that reads it."""

    what: str = ""
    marker: Path | None = None
    """a file that the process writes, with its number, before"""

    def blocks(self, after: Position = BEGINNING, hashed: bool = False) -> Iterator[Block]:
        yield from super().blocks(after, hashed)
        if self.marker is not None:
            self.marker.write_text(str(os.getpid()))
        match self.what:
            case "slow":
                time.sleep(0.4)
            case "stalls":
                time.sleep(600)
            case "imports":
                raise TrainyardError(" ".join(sorted(sys.modules)))
