"""Parquet files: row groups are found by the footer, so that a place is reached without reading what lies before."""

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from data_tools.reading.block import Position
from data_tools.reading.documents import BLOCK_BYTES
from data_tools.reading.files.rows_part import Rows, RowsPart, refusing_damage

_MOST_ROWS = 1 << 16
"""at once, where rows are tiny"""


class _Group(NamedTuple):
    number: int
    first: int
    """rows of the file before it"""
    rows: int
    size: int
    """bytes of its wanted columns, unpacked"""


class ParquetPart(RowsPart):
    """A file, or the row groups that begin in a stretch of its bytes. Positions are {"row": rows before it}."""

    def columns(self) -> list[str]:
        with refusing_damage(self.path), self._open() as file:
            return list(file.schema_arrow.names)

    def _open(self) -> Any:
        import pyarrow.parquet

        # without a buffer, the columns of a whole row group are read at once
        return pyarrow.parquet.ParquetFile(self.path, buffer_size=BLOCK_BYTES)

    def rows_from(self, after: Position) -> Iterator[Rows]:
        passed = after.get("row", 0)
        assert isinstance(passed, int)
        with refusing_damage(self.path), self._open() as file:
            if file.metadata.num_rows < passed:
                raise self.shorter_than(passed, "row")
            groups = list(self._groups(file.metadata))
            total, done = sum(group.rows for group in groups), 0
            for group in groups:
                if group.first + group.rows > passed:
                    yield from self._rows_of(file, group, done, total)
                done += group.rows

    def _groups(self, metadata: Any) -> Iterator[_Group]:
        """Those of the stretch."""
        begin, end = self.stretch or (0, self.size)
        # of a whole file all are read, wherever they lie
        starts = _starts(metadata) if self.stretch else [0] * metadata.num_row_groups
        first = 0
        for number, start in enumerate(starts):
            group = metadata.row_group(number)
            if begin <= start < end:
                yield _Group(number, first, group.num_rows, _bytes_of(group, self.keys))
            first += group.num_rows

    def _rows_of(self, file: Any, group: _Group, done: int, total: int) -> Iterator[Rows]:
        """The rows of a group, after `done` of the `total` rows of the part."""
        at_once = min(_MOST_ROWS, max(1, group.rows * BLOCK_BYTES // max(1, group.size)))
        passed = 0
        for batch in file.iter_batches(at_once, [group.number], list(self.keys), use_threads=False):
            read = self.size * (done + passed + batch.num_rows) // total
            yield Rows(group.first + passed, batch.select(list(self.keys)), read, {})
            passed += batch.num_rows

    def cut_places(self, after: Sequence[int]) -> Sequence[int] | None:
        with refusing_damage(self.path), self._open() as file:
            places = [*_starts(file.metadata), self.size]
        if any(a >= b for a, b in pairwise(places)):
            return None
        return [next(each for each in places if each >= place) for place in after]


def _starts(metadata: Any) -> list[int]:
    """The first byte of each row group; that of the first one is the file's, whose beginning it takes along."""
    starts = [_start(metadata.row_group(group)) for group in range(1, metadata.num_row_groups)]
    return [0, *starts] if metadata.num_row_groups else []


def _start(group: Any) -> int:
    columns = map(group.column, range(group.num_columns))
    # a dictionary lies before its column's data; some writers say 0 where there is none
    return min((each.dictionary_page_offset or each.data_page_offset for each in columns), default=0)


def _bytes_of(group: Any, keys: Collection[str]) -> int:
    """Bytes of the wanted columns, unpacked."""
    columns = map(group.column, range(group.num_columns))
    return sum(each.total_uncompressed_size for each in columns if each.path_in_schema.split(".")[0] in keys)
