"""Rows of some columns as bytes, and back."""

from collections.abc import Sequence
from typing import Any


def packed_rows(batches: Sequence[Any]) -> bytes:
    """Batches of the same columns (`pyarrow.RecordBatch`) as one Arrow stream, which holds their own rows alone."""
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def columns_of(content: bytes) -> dict[str, Any]:
    """Each column of such a stream, a `pyarrow.ChunkedArray`, by its name."""
    import pyarrow

    with pyarrow.ipc.open_stream(content) as reader:
        table = reader.read_all()
    return {name: table.column(name) for name in table.column_names}


def plain_texts(batch: Any) -> Any:
    """A `pyarrow.RecordBatch` in which columns of texts hold nothing but their texts.

    A slice of a column of views or numbers would take along what the whole column refers to.
    """
    import pyarrow

    for number, field in enumerate(batch.schema):
        kind = field.type.value_type if pyarrow.types.is_dictionary(field.type) else field.type
        if (kind != field.type and _is_text(kind)) or pyarrow.types.is_string_view(kind):
            plain = batch.column(number).cast(pyarrow.large_string())
            batch = batch.set_column(number, field.name, plain)
    return batch


def _is_text(kind: Any) -> bool:
    import pyarrow

    return any(is_kind(kind) for is_kind in (pyarrow.types.is_string, pyarrow.types.is_large_string))


def texts_of_column(column: Any) -> list[str] | None:
    """The texts of a column; None if one is missing, or is no UTF-8, or the column is of another kind."""
    if not _is_text(column.type) or column.null_count:
        return None
    try:
        texts: list[str] = column.to_pylist()  # of to_numpy, the first call imports pandas, for 0.4 s
    except UnicodeDecodeError:
        return None
    return texts
