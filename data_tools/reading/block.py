"""What is read at a time: a block of whole entries, and the place that reading goes on from after it."""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, Protocol

from pydantic import JsonValue

Position = Mapping[str, JsonValue]
"""a place between two entries of a part, as its reader writes it: a byte and a line, a row, a state of a collection"""
BEGINNING: Position = {}
Unit = Literal["line", "element", "row", "file"]


class Block(NamedTuple):
    """Whole entries, in order. A block is small (about 1 MB), unless one entry is larger."""

    form: Literal["lines", "rows", "text"]
    """how the entries are written: lines of JSON (those of an array too), an Arrow stream of rows, or one text"""
    content: bytes
    origin: str
    """what errors call the part it is of"""
    unit: Unit
    """what errors call an entry"""
    first: int
    """number of its first entry, from 1; of lines, blank ones count too"""
    entries: int
    position: Position
    """of the place after it"""
    source_bytes: int
    """bytes of the part's file that were read up to here, for progress"""


class BadEntry(NamedTuple):
    """An entry that is no document, and was left out."""

    number: int
    """of the entry in its part, from 1"""
    reason: str
    """names file and entry, and what to do"""


class PartContent(NamedTuple):
    """What a part held, once it was read to its end."""

    size: int
    """bytes as they are stored; of a collection, those of its texts"""
    sha256: str


class Part(Protocol):
    """What is read from one end to the other: a file, a stretch of its lines, a shard of a collection."""

    name: str
    """how manifests call it: no machine's path"""
    origin: str
    """how errors call it: with its path"""
    size: int
    """bytes, for progress; 0 where they are not known"""
    stretch: tuple[int, int] | None
    """from which byte of its file to which (not included) it is, where the file was cut; None: all of it"""

    def blocks(self, after: Position = BEGINNING, hashed: bool = False) -> Iterator[Block]:
        """The blocks after a place. Where they are cut may depend on the place; their entries do not.

        Args:
            hashed: all bytes of the part are read, those before `after` too, for `content`.

        Raises:
            Damaged: the part is cut off, or not of its format.
            TrainyardError: it cannot be read.
        """

    def content(self) -> PartContent:
        """Hash of a part whose hashed blocks have been read to their end."""
