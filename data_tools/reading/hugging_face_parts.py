"""Shards of a dataset as parts: streamed, or rows of a dataset on disk."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_tools.reading.block import BEGINNING, Block, PartContent, Position
from data_tools.reading.hugging_face_client import Patience, use_patience
from data_tools.reading.hugging_face_failures import COLUMN_REMEDY, ColumnProblem, reading_failures
from data_tools.reading.hugging_face_rows import RowsHash, row_blocks
from megatron_patches.errors import TrainyardError

if TYPE_CHECKING:
    import datasets
    import pyarrow

ROWS_AT_ONCE = 200
"""rows of a table of the library; blocks are put together of several"""


@dataclass(kw_only=True)
class DatasetPart(ABC):
    """Rows of a dataset. A position is the number of rows before it."""

    name: str
    origin: str
    columns: tuple[str, ...]
    size: int = 0
    stretch: tuple[int, int] | None = None
    _content: PartContent | None = field(default=None, init=False)

    @abstractmethod
    def tables(self, start: int) -> "Iterator[tuple[int, pyarrow.Table]]":
        """Its tables, each with the number of its first row, from 0; rows before `start` may come too."""

    def blocks(self, after: Position = BEGINNING, hashed: bool = False) -> Iterator[Block]:
        """The blocks after a place; see `Part`."""
        start = _row(after, self.origin)
        seen = RowsHash(len(self.columns)) if hashed else None
        yield from row_blocks(self._behind(start, seen), self.origin, start)
        if seen is not None:
            self._content = seen.content()

    def content(self) -> PartContent:
        """Hash of a part whose hashed blocks have been read to their end; see `RowsHash`."""
        assert self._content is not None, "its hashed blocks have not been read to their end"
        return self._content

    def _behind(self, start: int, seen: RowsHash | None) -> "Iterator[pyarrow.Table]":
        """The rows from `start` on; all are hashed."""
        end = 0
        with reading_failures(self.origin):
            for first, table in self.tables(0 if seen else start):
                self._check(table, first)
                table = table.select(self.columns)
                end = first + table.num_rows
                if seen is not None:
                    seen.add(table)
                if end > start:
                    yield table.slice(max(0, start - first))
        if end < start:
            raise TrainyardError(
                f"{self.origin} has {end:,} rows, fewer than the {start:,} that were read of it before: it was changed"
            )

    def _check(self, table: "pyarrow.Table", first: int) -> None:
        for column in self.columns:
            if column not in table.column_names:
                there = ", ".join(table.column_names) or "none"
                raise ColumnProblem(
                    f"has no column {column!r} from row {first + 1:,} on, only {there}; {COLUMN_REMEDY}"
                )


def _row(after: Position, origin: str) -> int:
    row = after.get("row", 0)
    if not isinstance(row, int) or row < 0:
        raise TrainyardError(f"{origin}: {dict(after)} is no place in rows; was it written for another source?")
    return row


@dataclass(kw_only=True)
class StreamedShard(DatasetPart):
    """One shard that the library reads as it is needed; what lies before a position is read again, of it alone."""

    dataset: "datasets.IterableDataset"
    patience: Patience

    def tables(self, start: int) -> "Iterator[tuple[int, pyarrow.Table]]":
        """From the beginning, always."""
        use_patience(self.patience)
        first = 0
        for table in self.dataset.with_format("arrow").iter(batch_size=ROWS_AT_ONCE):
            yield first, table
            first += table.num_rows


@dataclass(kw_only=True)
class StoredRows(DatasetPart):
    """Rows of a dataset on disk, in its format: any of them is read at once."""

    dataset: "datasets.Dataset"
    first: int
    """row of the dataset that is its first"""
    rows: int

    def tables(self, start: int) -> "Iterator[tuple[int, pyarrow.Table]]":
        """From `start` on; an empty one where nothing is left."""
        stored = self.dataset.with_format("arrow")
        begin = min(start, self.rows)
        for row in range(begin, max(self.rows, begin + 1), ROWS_AT_ONCE):
            behind = min(row + ROWS_AT_ONCE, self.rows)
            yield row, stored[self.first + row : self.first + behind]


@dataclass
class CheckedCast:
    """Stands before the library's own cast of what it has read of a file.

    That cast fills columns that are missing with nothing, makes texts of numbers, and rewrites texts that look like
    dates ("2020-01-01" becomes "2020-01-01 00:00:00", if a whole table holds dates alone): all without a word.
    """

    builder: Any
    columns: Sequence[str]

    def __call__(self, table: "pyarrow.Table", *further: Any, **options: Any) -> "pyarrow.Table":
        """The table as the library casts it.

        Raises:
            ColumnProblem: a column that is read is not in it, or is no text where the others are texts.
        """
        features = self.builder.info.features
        for column in self.columns:
            if column not in table.column_names:
                there = ", ".join(table.column_names) or "none"
                raise ColumnProblem(f"has no column {column!r}, only {there}; {COLUMN_REMEDY}")
            kind = str(table.schema.field(column).type)
            expected = None if features is None else getattr(features.get(column), "dtype", None)
            if expected in ("string", "large_string") and "string" not in kind and kind != "null":
                dates = "; the library reads texts that are all dates this way" if "time" in kind else ""
                raise ColumnProblem(
                    f"has {kind} in column {column!r}, where the dataset has texts{dates}; correct it, or give the "
                    f"files themselves without hf:"
                )
        return type(self.builder)._cast_table(self.builder, table, *further, **options)
