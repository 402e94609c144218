"""Documents of one file: lines of JSON, an array of JSON objects, parquet, or text (a whole file is one document)."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from data_tools.text.decompression import COMPRESSIONS, open_decompressed
from data_tools.text.json_array import array_objects, too_long
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable, shortened

LARGEST_DOCUMENT = 256 << 20
"""bytes of the longest document that is read where nothing else is asked for; parsing takes several times as much"""
PARQUET_ROWS_READ_AT_ONCE = 1024
PARQUET, TEXT, JSON = ".parquet", ".txt", (".jsonl", ".ndjson", ".json")
FORMS = f"{', '.join((*JSON, TEXT))} (each also with {' '.join(COMPRESSIONS)}) and {PARQUET}"
"""for messages: the endings of what is read"""


def form_of(name: str) -> str | None:
    """The ending that says what a file of this name holds, without that of its compression; None if none is known."""
    lower = name.lower()
    packed = next((each for each in COMPRESSIONS if lower.endswith(each)), "")
    bare = lower.removesuffix(packed)
    known = (TEXT, *JSON) if packed else (PARQUET, TEXT, *JSON)
    return next((each for each in known if bare.endswith(each)), None)


class Document(NamedTuple):
    """One document; an empty text is a document too."""

    texts: tuple[str, ...]
    """The text of each key, in the order of the keys."""
    text_bytes: int
    """Bytes of these texts in UTF-8."""
    source_bytes: int
    """Bytes of its file that were read when it came up, for progress."""


def read_documents(path: Path, json_keys: Sequence[str], largest: int = LARGEST_DOCUMENT) -> Iterator[Document]:
    """Reads one file, document by document.

    Args:
        json_keys: keys of a JSON object or columns of a parquet file; a text file has one text, whatever its key.
        largest: bytes of the longest document.

    Raises:
        Damaged: the file is cut off, or not of its format.
        TrainyardError: a document lacks a key, is no document, or is longer than the limit; names file and line (or
            element, or row), from 1.
    """
    form = form_of(path.name)
    read = {PARQUET: _read_parquet, TEXT: _read_text}.get(form or "", _read_json)
    return read(path, json_keys, largest)


def _read_text(path: Path, json_keys: Sequence[str], largest: int) -> Iterator[Document]:
    if len(json_keys) != 1:
        raise TrainyardError(
            f"{printable(path)} is one text without keys, but {len(json_keys)} were asked for; give a .jsonl"
        )
    with open_decompressed(path) as (stream, raw):
        content = stream.read(largest + 1)
        if len(content) > largest:
            raise too_long(printable(path), largest)
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from None
        yield Document((text,), len(content), raw.tell())


def _read_json(path: Path, json_keys: Sequence[str], largest: int) -> Iterator[Document]:
    """Which of the two it is, the first character says: an object begins a line of its own, an array holds objects."""
    with open_decompressed(path) as (stream, raw):
        first = _first_character(stream)
        read = _read_array if first == b"[" else _read_lines
        yield from read(path, stream, raw, json_keys, largest)


def _first_character(stream: io.BufferedReader) -> bytes:
    """The first byte that is no whitespace or byte order mark, as far as one look ahead shows."""
    ahead = stream.peek(1)
    return ahead.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _read_lines(
    path: Path, stream: io.BufferedReader, raw: BinaryIO, json_keys: Sequence[str], largest: int
) -> Iterator[Document]:
    number = 0
    while line := stream.readline(largest + 1):
        number += 1
        where = f"{printable(path)}, line {number}"
        if len(line) > largest:
            raise too_long(where, largest)
        if line.strip():
            yield _document(_json_object(line, where), json_keys, where, raw.tell())


def _json_object(text: bytes | str, where: str) -> dict[str, Any]:
    try:
        return parse_object(text, where, keep_surrogates=True)
    except Damaged as error:
        raise TrainyardError(
            f'{error}; expected an object such as {{"text": "..."}} on a line of its own, or an array of them in the '
            "whole file: correct or remove it"
        ) from None


def _read_array(
    path: Path, stream: io.BufferedReader, raw: BinaryIO, json_keys: Sequence[str], largest: int
) -> Iterator[Document]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig")
    try:
        for number, values in enumerate(array_objects(text, printable(path), largest), start=1):
            yield _document(values, json_keys, f"{printable(path)}, element {number}", raw.tell())
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    finally:
        text.detach()


def _document(values: dict[str, Any], json_keys: Sequence[str], where: str, source_bytes: int) -> Document:
    text_bytes = 0
    for key in json_keys:
        if key not in values:
            keys = shortened(", ".join(values) or "none")
            raise TrainyardError(f"{where}: no key '{shortened(key)}', only {keys}; see --json-keys")
        if not isinstance(values[key], str):
            raise TrainyardError(
                f"{where}: {key!r} is {type(values[key]).__name__}, expected a text; an empty one is allowed"
            )
        try:
            text_bytes += len(values[key].encode())
        except UnicodeEncodeError as error:  # JSON can spell it, but no tokenizer can read it
            raise TrainyardError(f"{where}: {key!r} has half of a surrogate pair ({error}); remove it") from None
    return Document(tuple(values[key] for key in json_keys), text_bytes, source_bytes)


def _read_parquet(path: Path, json_keys: Sequence[str], largest: int) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if missing := [key for key in json_keys if columns.count(key) != 1]:
                none = "several columns" if missing[0] in columns else "no column"
                raise TrainyardError(
                    f"{printable(path)}: {none} {', '.join(map(repr, missing))}, only {shortened(', '.join(columns))}; "
                    "see --json-keys"
                )
            for document in _parquet_rows(path, file, json_keys):
                if document.text_bytes > largest:
                    raise too_long(f"{printable(path)}, a row near byte {document.source_bytes:,}", largest)
                yield document
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise Refused(f"{printable(path)} cannot be read: {error.strerror}") from error
        raise Damaged(f"{printable(path)} is not a whole parquet file ({shortened(error)}); copy it again") from error


def _parquet_rows(path: Path, file: Any, json_keys: Sequence[str]) -> Iterator[Document]:
    rows, size = max(1, file.metadata.num_rows), path.stat().st_size
    number = 0
    for batch in file.iter_batches(PARQUET_ROWS_READ_AT_ONCE, columns=list(json_keys)):
        columns = {key: batch.column(key).to_pylist() for key in json_keys}
        for row in zip(*columns.values(), strict=True):
            number += 1
            values = dict(zip(columns, row, strict=True))
            yield _document(values, json_keys, f"{printable(path)}, row {number}", size * number // rows)


def _not_utf8(path: Path, error: UnicodeDecodeError) -> TrainyardError:
    return TrainyardError(
        f"{printable(path)} is not UTF-8 ({error.reason} at byte {error.start:,} of a piece); convert it with "
        "iconv -t UTF-8"
    )
