"""How far preprocessing is, as its journal says it: what is needed to go on, and nothing that can be read elsewhere."""

from collections import Counter
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, JsonValue

from data_tools.datasets.indexed_dataset_writer import WriterMark
from data_tools.datasets.manifest import SourceFacts
from data_tools.domain_tokens.report import InjectionCounts

VERSION = 1
"""of the journal; raise it with each change of what the journal holds: older unfinished work is then refused"""
BAD_NAMED = 100
"""reasons of left-out entries that are kept; their number is there too"""


class _Note(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, validate_assignment=True)


class FileNote(_Note):
    """A finished file."""

    size: int
    sha256: str


class DatasetNote(_Note):
    """One dataset: a key, or a shard of it."""

    tokens: int = 0
    sequences: int = 0
    documents: int = 0
    largest_token: int | None = None
    ends: bool = False
    empty_documents: int = 0
    answers: int = 0
    answer_tokens: int = 0
    files: list[FileNote] = []
    """`.bin` and `.idx` once they are finished"""

    def mark(self) -> WriterMark:
        """Where its writer goes on."""
        return WriterMark(self.tokens, self.sequences, self.documents, self.largest_token, self.ends)


class OutputNote(_Note):
    """Datasets in writing, those of all keys."""

    finished: list[list[DatasetNote]] = []
    """datasets of the finished shards, one for each key"""
    current: list[DatasetNote] | None = None
    """the shard that is being written; None before the first and between two"""


class InjectionNote(_Note):
    """What was put into the documents of one key."""

    bare: dict[str, int] = {}
    with_product: dict[str, int] = {}
    left_alone: int = 0
    literal: int = 0

    @classmethod
    def of(cls, counts: InjectionCounts) -> Self:
        """As it was counted."""
        return cls(
            bare=dict(counts.bare),
            with_product=dict(counts.with_product),
            left_alone=counts.left_alone,
            literal=counts.literal,
        )

    def counts(self) -> InjectionCounts:
        """To be counted on."""
        return InjectionCounts(Counter(self.bare), Counter(self.with_product), self.left_alone, self.literal)


class ReadingNote(_Note):
    """What was read, up to a place after a block."""

    sources: list[SourceFacts] = []
    """parts that were read to their ends"""
    position: dict[str, Any] = {}
    """in the part after them"""
    part_documents: int = 0
    """documents of that part up to there"""
    documents: int = 0
    """of all parts, without those that were made up"""
    made_up: int = 0
    bad: int = 0
    """entries that were left out"""
    bad_named: list[str] = []
    shortened: list[int] = []
    """documents of each key that were cut"""
    injection: list[InjectionNote] = []
    """of each key"""
    counted: int | None = None
    """documents of the sources, where a first reading counted them"""
    proof: dict[str, JsonValue] | None = None
    """what showed that ids are the tokenizer's own; see `EncodingProof`"""
    earlier_proofs: list[dict[str, JsonValue]] = []
    """those of other libraries, or versions, that encoded before a kill"""
    by_reference: list[str] = []
    """origins of parts that the reference encodes, because another library gave other ids"""


class PlaceNote(_Note):
    """A place between two documents."""

    documents: int = 0
    sequences: int = 0
    tokens: int = 0


class Note(_Note):
    """All of it."""

    version: int = VERSION
    asked: dict[str, JsonValue]
    """the request and the files, so far as they decide what is written"""
    stage: Literal["tokenize", "scatter", "order", "publish"] = "tokenize"
    reading: ReadingNote
    part_began: ReadingNote
    """as it was in front of the part that is read"""
    part_output: OutputNote = OutputNote()
    read: OutputNote = OutputNote()
    """tokens in the order of reading"""
    scattered: list[PlaceNote] = []
    """of each key, where its documents lie in their buckets up to"""
    ordered: int = 0
    """buckets that were written in order"""
    made: OutputNote = OutputNote()
    """datasets in their final order, where that is another"""
