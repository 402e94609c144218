"""What all parts that lie in files have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_tools.reading.block import BEGINNING, Block, PartContent, Position
from data_tools.reading.documents import LARGEST_DOCUMENT
from megatron_patches.errors import Damaged
from megatron_patches.foreign.printable import printable


class FilePart(ABC):
    """A file, or a stretch of one: a `Part`."""

    def __init__(
        self,
        path: Path,
        name: str,
        keys: Sequence[str],
        largest: int = LARGEST_DOCUMENT,
        stretch: tuple[int, int] | None = None,
    ) -> None:
        self.path = path
        self.name = name
        self.keys = tuple(keys)
        self.largest = largest
        self.stretch = stretch
        self.origin = printable(path)
        self.size = path.stat().st_size if stretch is None else stretch[1] - stretch[0]
        self._content: PartContent | None = None

    @abstractmethod
    def blocks(self, after: Position = BEGINNING, hashed: bool = False) -> Iterator[Block]:
        """As in `Part`."""

    def cut_places(self, after: Sequence[int]) -> Sequence[int] | None:
        """The first place at or after each of these bytes where the file can be cut; None: it cannot be cut.

        Args:
            after: in order, each within the file.
        """
        return None

    def cut(self, first: int, end: int) -> "FilePart":
        """A stretch of the file between two places where it can be cut, its beginning and its end among them."""
        return type(self)(self.path, self.name, self.keys, self.largest, (first, end))

    def content(self) -> PartContent:
        """As in `Part`."""
        assert self._content is not None, "hashed blocks were not read to their end"
        return self._content

    def shorter_than(self, place: int, unit: str) -> Damaged:
        """The error of a place to go on from that the file does not have."""
        return Damaged(
            f"{self.origin} ends before {unit} {place:,}, after which reading was to go on: it has changed since; "
            "copy it again, or begin from the start"
        )
