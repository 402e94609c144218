"""Blocks to documents and entries, in the process that tokenizes them: a fast parser first, the strict one for the rest."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from data_tools.reading.block import BadEntry, Block


class Documents(NamedTuple):
    """The documents of a block, in order; an empty text is a document too."""

    texts: list[list[str]]
    """of each key, the text of each document: [keys][documents]"""
    numbers: Sequence[int]
    """of each document, the number of its entry in the part; see `where_of`"""
    bad: list[BadEntry]
    """entries that are no documents, in order"""
    text_bytes: int
    """of all texts in UTF-8"""


class Entry(NamedTuple):
    """One JSON object, or one row, as it stands in its file."""

    values: dict[str, Any]
    number: int
    where: str
    """File and line (or element, or row), from 1, for errors."""


def where_of(block: Block, number: int) -> str:
    """How errors call an entry of the block: `FILE, line 3`; a file of one text is called by its name alone."""
    raise NotImplementedError


def documents_of(block: Block, keys: Sequence[str], largest: int, option: str = "--json-keys") -> Documents:
    """The texts of a block.

    Args:
        keys: of the texts; one text (form "text") is the same whatever its key.
        largest: bytes of the longest document; the same as the part was given.
        option: where the keys were asked for, for messages.
    """
    raise NotImplementedError


def entries_of(
    block: Block, keys: Sequence[str], largest: int, option: str = "--json-keys"
) -> tuple[list[Entry], list[BadEntry]]:
    """The objects or rows of a block (of lines or rows), each of which has the keys; and what is none."""
    raise NotImplementedError
