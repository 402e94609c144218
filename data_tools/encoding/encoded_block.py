"""What encoding makes of a block."""

from collections.abc import Sequence
from typing import NamedTuple

from data_tools.reading.block import BadEntry
from data_tools.text.document_encoding import EncodedTexts


class Compared(NamedTuple):
    """What the reference encoded too, with the same ids."""

    documents: int = 0
    """texts, or records"""
    text_bytes: int = 0
    """of these in UTF-8"""
    hashes: tuple[bytes, ...] = ()
    """sha256 of the ids of each, as little-endian int32"""


class EncodedBlock(NamedTuple):
    """The documents of a block, in order."""

    texts: list[EncodedTexts]
    """of each key; one of records"""
    bad: list[BadEntry]
    text_bytes: int
    """of its texts in UTF-8"""
    compared: Compared = Compared()
    before_bad: Sequence[int] = ()
    """of each bad entry, how many documents of the block stand before it"""
