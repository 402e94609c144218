"""Documents of one file: lines of JSON, an array of JSON objects, parquet, or text (a whole file is one document)."""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from data_tools.reading.decompression import COMPRESSIONS, open_decompressed
from data_tools.reading.json_array import array_objects, too_long
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


class Entry(NamedTuple):
    """One JSON object, or one row of a parquet file, as it stands in its file."""

    values: dict[str, Any]
    where: str
    """File and line (or element, or row), from 1, for errors."""
    source_bytes: int
    """As in a document."""


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
    if form_of(path.name) == TEXT:
        yield from _read_text(path, json_keys, largest)
        return
    for entry in read_entries(path, json_keys, largest):
        texts = {repr(key): text_of(entry, key) for key in json_keys}
        yield Document(tuple(texts.values()), checked_bytes(entry, texts.items(), largest), entry.source_bytes)


def read_entries(
    path: Path, keys: Sequence[str], largest: int = LARGEST_DOCUMENT, option: str = "--json-keys"
) -> Iterator[Entry]:
    """Reads the objects or rows of a file that is no text.

    Args:
        keys: what each of them must have; of a parquet file nothing else is read.
        largest: bytes of the longest one in a file of JSON.
        option: where the keys were asked for, for errors.

    Raises:
        Damaged: the file is cut off, or not of its format.
        TrainyardError: an entry lacks a key, is no object, or is longer than the limit.
    """
    parquet = form_of(path.name) == PARQUET
    for entry in _read_parquet(path, keys, option) if parquet else _read_json(path, largest):
        for key in keys:
            if key not in entry.values:
                there = shortened(", ".join(entry.values) or "none")
                raise TrainyardError(f"{entry.where}: no key '{shortened(key)}', only {there}; see {option}")
        yield entry


def text_of(entry: Entry, key: str) -> str:
    """What an entry has under a key that it has.

    Raises:
        TrainyardError: it is no text.
    """
    text = entry.values[key]
    if not isinstance(text, str):
        raise TrainyardError(
            f"{entry.where}: {key!r} is {type(text).__name__}, expected a text; an empty one is allowed"
        )
    return text


def checked_bytes(entry: Entry, texts: Iterable[tuple[str, str]], largest: int) -> int:
    """Bytes of an entry's texts in UTF-8.

    Args:
        texts: each behind its name, for errors.

    Raises:
        TrainyardError: there are too many of them, or a text cannot be written.
    """
    size = 0
    for name, text in texts:
        try:
            size += len(text.encode())
        except UnicodeEncodeError as error:  # JSON can spell it, but no tokenizer can read it
            raise TrainyardError(f"{entry.where}: {name} has half of a surrogate pair ({error}); remove it") from None
    if size > largest:
        raise too_long(entry.where, largest)
    return size


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


def _read_json(path: Path, largest: int) -> Iterator[Entry]:
    """Which of the two it is, the first character says: an object begins a line of its own, an array holds objects."""
    with open_decompressed(path) as (stream, raw):
        first = _first_character(stream)
        read = _read_array if first == b"[" else _read_lines
        yield from read(path, stream, raw, largest)


def _first_character(stream: io.BufferedReader) -> bytes:
    """The first byte that is no whitespace or byte order mark, as far as one look ahead shows."""
    ahead = stream.peek(1)
    return ahead.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _read_lines(path: Path, stream: io.BufferedReader, raw: BinaryIO, largest: int) -> Iterator[Entry]:
    number = 0
    while line := stream.readline(largest + 1):
        number += 1
        where = f"{printable(path)}, line {number}"
        if len(line) > largest:
            raise too_long(where, largest)
        if line.strip():
            yield Entry(_json_object(line, where), where, raw.tell())


def _json_object(text: bytes | str, where: str) -> dict[str, Any]:
    try:
        return parse_object(text, where, keep_surrogates=True)
    except Damaged as error:
        raise TrainyardError(
            f'{error}; expected an object such as {{"text": "..."}} on a line of its own, or an array of them in the '
            "whole file: correct or remove it"
        ) from None


def _read_array(path: Path, stream: io.BufferedReader, raw: BinaryIO, largest: int) -> Iterator[Entry]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig")
    try:
        for number, values in enumerate(array_objects(text, printable(path), largest), start=1):
            yield Entry(values, f"{printable(path)}, element {number}", raw.tell())
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    finally:
        text.detach()


def _read_parquet(path: Path, keys: Sequence[str], option: str) -> Iterator[Entry]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if missing := [key for key in keys if columns.count(key) != 1]:
                none = "several columns" if missing[0] in columns else "no column"
                raise TrainyardError(
                    f"{printable(path)}: {none} {', '.join(map(repr, missing))}, only {shortened(', '.join(columns))}; "
                    f"see {option}"
                )
            yield from _parquet_rows(path, file, keys)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise Refused(f"{printable(path)} cannot be read: {error.strerror}") from error
        raise Damaged(f"{printable(path)} is not a whole parquet file ({shortened(error)}); copy it again") from error


def _parquet_rows(path: Path, file: Any, keys: Sequence[str]) -> Iterator[Entry]:
    rows, size = max(1, file.metadata.num_rows), path.stat().st_size
    number = 0
    for batch in file.iter_batches(PARQUET_ROWS_READ_AT_ONCE, columns=list(keys)):
        columns = {key: batch.column(key).to_pylist() for key in keys}
        for row in zip(*columns.values(), strict=True):
            number += 1
            values = dict(zip(columns, row, strict=True))
            yield Entry(values, f"{printable(path)}, row {number}", size * number // rows)


def _not_utf8(path: Path, error: UnicodeDecodeError) -> TrainyardError:
    return TrainyardError(
        f"{printable(path)} is not UTF-8 ({error.reason} at byte {error.start:,} of a piece); convert it with "
        "iconv -t UTF-8"
    )
