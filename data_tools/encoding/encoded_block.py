"""What encoding makes of a block."""

from typing import NamedTuple

from data_tools.text.document_encoding import EncodedTexts


class BadEntry(NamedTuple):
    """An entry that is no document, and was left out."""

    number: int
    """of the entry in its part, from 1"""
    reason: str
    """names file and entry, and what to do"""


class EncodedBlock(NamedTuple):
    """The documents of a block, in order."""

    texts: list[EncodedTexts]
    """of each key; one of records"""
    bad: list[BadEntry]
    text_bytes: int
    """of its texts in UTF-8"""
