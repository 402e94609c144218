"""Files of documents as parts: which reader a file has, its name says."""

from collections.abc import Sequence
from pathlib import Path

from data_tools.reading.documents import ARROW, LARGEST_DOCUMENT, PARQUET, TEXT, form_of
from data_tools.reading.files.arrow_part import ArrowPart
from data_tools.reading.files.file_part import FilePart
from data_tools.reading.files.lines_part import LinesPart
from data_tools.reading.files.parquet_part import ParquetPart
from data_tools.reading.files.text_part import TextPart
from megatron_patches.errors import TrainyardError


def file_part(
    path: Path,
    name: str,
    keys: Sequence[str],
    largest: int = LARGEST_DOCUMENT,
    option: str = "--json-keys",
    records: bool = False,
) -> FilePart:
    """One file, whole.

    Args:
        name: how manifests call it.
        keys: keys of JSON objects, or columns of rows.
        largest: bytes of the longest entry; a longer line or text is cut to one more, for `documents_of` to refuse.
        option: where the keys were asked for, for errors.
        records: whether entries are more than texts.

    Raises:
        Damaged: a file of rows is not of its format.
        TrainyardError: a file of rows lacks a column, or one text is asked for several keys or for records.
    """
    form = form_of(path.name)
    if form == TEXT:
        part: FilePart = TextPart(path, name, keys, largest)
        if records or len(keys) != 1:
            asked = f"{option} asks for records" if records else f"{len(keys)} were asked for"
            raise TrainyardError(f"{part.origin} is one text without keys, but {asked}; give a .jsonl")
        return part
    if form not in (PARQUET, ARROW):
        return LinesPart(path, name, keys, largest)
    rows = (ParquetPart if form == PARQUET else ArrowPart)(path, name, keys, largest)
    rows.check_columns(option)
    return rows
