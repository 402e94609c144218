"""What decides the samples of a stream, and what it needs to make them."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.plans.samples_config import PacksConfig, SamplesSection
from data_tools.plans.wrapping import Wrapping
from data_tools.reading.block import Block, Part
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.order import ONLY_SOURCE
from data_tools.streams.position import VERSION

UNSHUFFLED_DOCUMENTS = 4096
"""documents of a block whose order is kept, where samples do not depend on it"""


class Encode(Protocol):
    """Makes token ids of blocks, in order, and may read some blocks ahead: an `EncodingPool`'s `encode`, say."""

    def __call__(
        self, blocks: Iterable[Block], by_reference: Collection[str] = ()
    ) -> Iterator[tuple[Block, EncodedBlock]]:
        """One call at a time.

        Args:
            by_reference: origins of parts that the tokenizer's own library encodes, whatever else does the others.

        Raises:
            DifferentIds: what encodes gives other ids than the tokenizer's own library, found in the block that is due.
        """


@dataclass(frozen=True)
class StreamSettings:
    """How the documents of a source become samples."""

    samples: SamplesSection
    """`data.samples`: stream, windows or packs"""
    lengths: SampleLengths
    seed: int
    source: str = ONLY_SOURCE
    """name; others give independent orders"""
    identity: str = ""
    """of what else decides the samples: the tokenizer's id, whether documents are ended, the collection's revision"""
    shuffle_documents: int = 1
    """documents that are held and put in a random order at a time; 1 keeps the order of parts and documents"""
    reserved: tuple[int, ...] = ()
    """documents of each part, in the given order, that are never read; empty: none"""
    answers: bool = False
    """whether documents are records: odd-numbered sequences are answers, and they alone are to be predicted"""
    tokenizer: Path | None = None
    """folder or `.model`; filters of characters need it"""
    max_epochs: int | None = None
    max_bad: int = 0
    """entries that may be left out in each epoch because they are no documents; one more is an error"""
    wrapping: Wrapping | None = None
    """what stands around each text, where `samples` says that something does"""

    @property
    def block_documents(self) -> int:
        """Documents that are held, put in a random order, and cut together."""
        if self.shuffle_documents > 1:
            return self.shuffle_documents
        return self.samples.block_documents if isinstance(self.samples, PacksConfig) else UNSHUFFLED_DOCUMENTS

    def reserved_of(self, part: int) -> int:
        """Documents of a part, by its place in the given order, that are never read."""
        return self.reserved[part] if part < len(self.reserved) else 0

    def key(self, parts: Sequence[Part]) -> str:
        """Short hash of all that decides which sample has which number; positions of other streams are refused."""
        content = {
            "version": VERSION,
            "parts": [part.name for part in parts],
            "samples": [self.samples.name, self.samples.decides(self.lengths.read)],
            "lengths": [self.lengths.read, self.lengths.stride],
            "seed": self.seed,
            "source": self.source,
            "identity": self.identity,
            "shuffle_documents": self.shuffle_documents,
            "reserved": [self.reserved_of(part) for part in range(len(parts))],
            "answers": self.answers,
            **({} if self.wrapping is None else {"wrapping": list(self.wrapping)}),
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
