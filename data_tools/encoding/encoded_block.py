"""What encoding makes of a block."""

from typing import NamedTuple

from data_tools.reading.block import BadEntry
from data_tools.text.document_encoding import EncodedTexts


class EncodedBlock(NamedTuple):
    """The documents of a block, in order."""

    texts: list[EncodedTexts]
    """of each key; one of records"""
    bad: list[BadEntry]
    text_bytes: int
    """of its texts in UTF-8"""
