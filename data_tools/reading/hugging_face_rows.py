"""Tables of Arrow as blocks of rows, and the hash of what they hold."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from data_tools.reading.block import Block, PartContent
from data_tools.reading.documents import BLOCK_BYTES
from data_tools.reading.rows import packed_rows

if TYPE_CHECKING:
    import pyarrow


def row_blocks(tables: "Iterable[pyarrow.Table]", origin: str, done: int) -> Iterator[Block]:
    """Blocks of the rows of tables, in order.

    Args:
        tables: each of all columns that are wanted, and no others.
        origin: what errors call the part.
        done: rows of the part before them.
    """
    source_bytes = 0
    for table in _of_block_size(tables):
        source_bytes += table.nbytes
        rows = table.num_rows
        first, done = done + 1, done + rows
        bare = table.replace_schema_metadata(None).combine_chunks()  # without the library's notes on the schema
        yield Block("rows", packed_rows(bare.to_batches()), origin, "row", first, rows, {"row": done}, source_bytes)


def _of_block_size(tables: "Iterable[pyarrow.Table]") -> "Iterator[pyarrow.Table]":
    import pyarrow

    waiting: list[pyarrow.Table] = []
    size = 0
    for table in tables:
        for piece in _halves(table):
            if waiting and (size + piece.nbytes > BLOCK_BYTES or piece.schema != waiting[0].schema):
                yield pyarrow.concat_tables(waiting)
                waiting, size = [], 0
            waiting.append(piece)
            size += piece.nbytes
    if waiting:
        yield pyarrow.concat_tables(waiting)


def _halves(table: "pyarrow.Table") -> "Iterator[pyarrow.Table]":
    """The rows of a table in pieces that are small enough."""
    if table.num_rows == 0:
        return
    if table.nbytes <= BLOCK_BYTES or table.num_rows == 1:
        yield table
        return
    half = table.num_rows // 2
    yield from _halves(table.slice(0, half))
    yield from _halves(table.slice(half))


class RowsHash:
    """The content of a part: sha256 over its values, however they are cut into tables.

    Each column, in order, has two sha256: of its texts one after the other in UTF-8, and of their lengths in
    bytes as little-endian int64, -1 where there is none. The whole is the sha256 of these digests. What is no text
    counts as its JSON with sorted keys.
    """

    def __init__(self, columns: int) -> None:
        """Nothing yet."""
        self._columns = [(hashlib.sha256(), hashlib.sha256()) for _ in range(columns)]
        self._size = 0

    def add(self, table: "pyarrow.Table") -> None:
        """Further rows, with these columns in this order."""
        for column, (texts, lengths) in zip(table.columns, self._columns, strict=True):
            for chunk in column.chunks:
                data, sizes = _bytes_of(chunk)
                texts.update(data)
                lengths.update(sizes)
                self._size += len(data)

    def content(self) -> PartContent:
        """What was added."""
        whole = hashlib.sha256(b"".join(each.digest() for pair in self._columns for each in pair))
        return PartContent(self._size, whole.hexdigest())


def _bytes_of(chunk: "pyarrow.Array") -> tuple[memoryview, bytes]:
    """The texts of an array, one after the other, and their lengths."""
    import numpy
    import pyarrow

    if not (pyarrow.types.is_string(chunk.type) or pyarrow.types.is_large_string(chunk.type)):
        values = (None if value is None else _json(value) for value in chunk.to_pylist())
        chunk = pyarrow.array(values, pyarrow.large_string())
    chunk = chunk.cast(pyarrow.large_string())
    lengths = pyarrow.compute.binary_length(chunk).fill_null(-1).cast(pyarrow.int64()).to_numpy(zero_copy_only=False)
    bare = chunk.fill_null("")
    _, offsets, data = bare.buffers()
    ends = numpy.frombuffer(offsets, "<i8")[bare.offset : bare.offset + len(bare) + 1]
    held = memoryview(b"") if data is None or len(ends) == 0 else memoryview(data)[ends[0] : ends[-1]]
    return held, lengths.astype("<i8").tobytes()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
