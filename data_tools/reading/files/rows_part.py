"""What all files of rows have in common: columns, and blocks of rows as Arrow streams."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from data_tools.reading.block import BEGINNING, Block, Position
from data_tools.reading.documents import BLOCK_BYTES
from data_tools.reading.files.file_part import FilePart
from data_tools.reading.files.stored_file import hashing
from data_tools.reading.rows import packed_rows, plain_texts
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.foreign.printable import printable, shortened


class Rows(NamedTuple):
    """Rows of the wanted columns that are read at once."""

    first: int
    """number of rows before them in the file"""
    batch: Any
    """`pyarrow.RecordBatch`"""
    source_bytes: int
    """of the part, up to their end"""
    place: Mapping[str, int]
    """what finds them again, beside their number"""


class RowsPart(FilePart):
    """A file of rows; positions are {"row": rows before it, ...}."""

    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the file's columns.

        Raises:
            Damaged: it is not of its format.
        """

    @abstractmethod
    def rows_from(self, after: Position) -> Iterator[Rows]:
        """The rows from the piece of the file on that holds a place; those before the place in that piece too.

        Raises:
            Damaged: it is not of its format, or ends before the place.
        """

    def check_columns(self, option: str) -> None:
        """Raises TrainyardError unless each key names one column.

        Args:
            option: where the keys were asked for.
        """
        columns = self.columns()
        if missing := [key for key in self.keys if columns.count(key) != 1]:
            none = "several columns" if missing[0] in columns else "no column"
            raise TrainyardError(
                f"{self.origin}: {none} {', '.join(map(repr, missing))}, only {shortened(', '.join(columns))}; "
                f"see {option}"
            )

    def blocks(self, after: Position = BEGINNING, hashed: bool = False) -> Iterator[Block]:
        if not hashed:
            yield from self._blocks(after)
            return
        # readers of rows jump about, so the file is hashed beside them
        with refusing_damage(self.path), hashing(self.path, *(self.stretch or (0, self.size))) as beside:
            yield from self._blocks(after)
            self._content = beside.content()

    def _blocks(self, after: Position) -> Iterator[Block]:
        passed = after.get("row", 0)
        assert isinstance(passed, int)
        waiting: list[Rows] = []
        size = 0
        for rows in self._pieces(after, passed):
            if rows.first + rows.batch.num_rows <= passed:
                continue
            waiting.append(rows)
            size += rows.batch.nbytes
            if size >= BLOCK_BYTES:
                yield self._block(waiting)
                waiting, size = [], 0
        if waiting:
            yield self._block(waiting)

    def _pieces(self, after: Position, passed: int) -> Iterator[Rows]:
        for rows in self.rows_from(after):
            before = min(max(0, passed - rows.first), rows.batch.num_rows)
            batch = plain_texts(rows.batch).slice(before)
            yield from _halved(rows._replace(first=rows.first + before, batch=batch))

    def _block(self, pieces: list[Rows]) -> Block:
        first, last = pieces[0].first, pieces[-1]
        end = last.first + last.batch.num_rows
        content = packed_rows([each.batch for each in pieces])
        position = {"row": end, **last.place}
        return Block("rows", content, self.origin, "row", first + 1, end - first, position, last.source_bytes)


def _halved(rows: Rows) -> Iterator[Rows]:
    """Pieces of no more than a block, but for single rows that are larger."""
    count = rows.batch.num_rows
    if count <= 1 or rows.batch.nbytes <= BLOCK_BYTES:
        yield rows
        return
    half = count // 2
    yield from _halved(rows._replace(batch=rows.batch.slice(0, half)))
    yield from _halved(rows._replace(first=rows.first + half, batch=rows.batch.slice(half)))


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Errors of pyarrow's readers as the project's own."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise Refused(f"{printable(path)} cannot be read: {error.strerror}") from error
        kind = path.suffix.lower().removeprefix(".")
        raise Damaged(f"{printable(path)} is not a whole {kind} file ({shortened(error)}); copy it again") from error
