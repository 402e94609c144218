"""Documents from files of text: .jsonl, .jsonl.gz, .jsonl.zst, .parquet, and .txt (a whole file is one document)."""

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from megatron_patches.errors import TrainyardError

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".txt")
PARQUET_ROWS_READ_AT_ONCE = 1024
READ_AHEAD_BYTES = 1 << 20


class Source(NamedTuple):
    """One file of documents."""

    path: Path
    name: str
    """How manifests call it: the file's name, behind the folder's if a folder was given; no machine's path."""


class Document(NamedTuple):
    """One document; an empty text is a document too."""

    texts: tuple[str, ...]
    """The text of each key, in the order of the keys."""
    text_bytes: int
    """Bytes of these texts in UTF-8."""
    source_bytes: int
    """Bytes of its file that were read when it came up, for progress."""


def find_sources(inputs: Sequence[Path]) -> list[Source]:
    """Lists the files to read, in order: files as given, a folder's files below it sorted by path.

    In a folder only files of the known suffixes count, so that a README or a _SUCCESS mark does no harm.

    Raises:
        TrainyardError: an input is missing, empty or of an unknown format, or a folder has no file of a known one.
    """
    sources: list[Source] = []
    for given in inputs:
        if given.is_dir():
            found = sorted(path for path in given.rglob("*") if path.name.endswith(SUFFIXES) and path.is_file())
            if not found:
                raise TrainyardError(f"folder {given} has no file ending in {', '.join(SUFFIXES)}; give another one")
            root = given.resolve().name
            sources += [Source(path, f"{root}/{path.relative_to(given).as_posix()}") for path in found]
        elif not given.is_file():
            raise TrainyardError(f"source {given} does not exist; give files or folders of text")
        elif not given.name.endswith(SUFFIXES):
            raise TrainyardError(f"source {given} is of an unknown format; expected a name in {', '.join(SUFFIXES)}")
        else:
            sources.append(Source(given, given.name))
    for source in sources:
        if source.path.stat().st_size == 0 and source.path.suffix != ".txt":
            raise TrainyardError(f"source {source.path} is empty (0 bytes); copy it again, or leave it out")
    return sources


def read_documents(path: Path, json_keys: Sequence[str]) -> Iterator[Document]:
    """Reads one file, document by document.

    Args:
        json_keys: keys of a JSON object or columns of a parquet file; a .txt file has one text, whatever its key.

    Raises:
        TrainyardError: the file is damaged or a document lacks a key; names file and line (or row), from 1.
    """
    if path.name.endswith(".parquet"):
        return _read_parquet(path, json_keys)
    if path.name.endswith(".txt"):
        return _read_txt(path, json_keys)
    return _read_jsonl(path, json_keys)


def _read_txt(path: Path, json_keys: Sequence[str]) -> Iterator[Document]:
    if len(json_keys) != 1:
        raise TrainyardError(f"{path} is one text without keys, but {len(json_keys)} were asked for; give a .jsonl")
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise TrainyardError(f"{path} is not UTF-8 ({error}); convert it with iconv -t UTF-8") from None
    yield Document((text,), len(content), len(content))


def _read_jsonl(path: Path, json_keys: Sequence[str]) -> Iterator[Document]:
    number = 0
    with path.open("rb") as raw:
        try:
            with _decompressed(path, raw) as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        where = f"{path}, line {number}"
                        yield _document(_json_object(line, where), json_keys, where, raw.tell())
        except (EOFError, OSError, zlib.error) as error:
            raise TrainyardError(f"{path} is damaged after line {number} ({error}); copy it again") from error


@contextmanager
def _decompressed(path: Path, raw: BinaryIO) -> Iterator[Iterable[bytes]]:
    if path.name.endswith(".gz"):
        with gzip.open(raw) as file:
            yield file
    elif path.name.endswith(".zst"):
        # Not the zstandard package: its stream_reader takes a truncated file for a whole one (0.25.0).
        import pyarrow

        with pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd") as stream:
            yield io.BufferedReader(stream, READ_AHEAD_BYTES)
    else:
        yield raw


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise TrainyardError(f"{where}: not JSON in UTF-8 ({error}); correct or remove the line") from None
    if not isinstance(value, dict):
        raise TrainyardError(f'{where}: expected an object such as {{"text": "..."}}, found {type(value).__name__}')
    return value


def _document(values: dict[str, Any], json_keys: Sequence[str], where: str, source_bytes: int) -> Document:
    text_bytes = 0
    for key in json_keys:
        if key not in values:
            raise TrainyardError(f"{where}: no key {key!r}, only {', '.join(values) or 'none'}; see --json-keys")
        if not isinstance(values[key], str):
            raise TrainyardError(
                f"{where}: {key!r} is {type(values[key]).__name__}, expected a text; an empty one is allowed"
            )
        try:
            text_bytes += len(values[key].encode())
        except UnicodeEncodeError as error:  # JSON can spell it, but no tokenizer can read it
            raise TrainyardError(f"{where}: {key!r} has half of a surrogate pair ({error}); remove it") from None
    return Document(tuple(values[key] for key in json_keys), text_bytes, source_bytes)


def _read_parquet(path: Path, json_keys: Sequence[str]) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if missing := [key for key in json_keys if key not in columns]:
                raise TrainyardError(
                    f"{path}: no column {', '.join(map(repr, missing))}, only {', '.join(columns)}; see --json-keys"
                )
            yield from _parquet_rows(path, file, json_keys)
    except (pyarrow.ArrowException, OSError) as error:
        raise TrainyardError(f"{path} is not a whole parquet file ({error}); copy it again") from error


def _parquet_rows(path: Path, file: Any, json_keys: Sequence[str]) -> Iterator[Document]:
    rows, size = file.metadata.num_rows, path.stat().st_size
    number = 0
    for batch in file.iter_batches(PARQUET_ROWS_READ_AT_ONCE, columns=list(json_keys)):
        columns = {key: batch.column(key).to_pylist() for key in json_keys}
        for row in zip(*columns.values(), strict=True):
            number += 1
            values = dict(zip(columns, row, strict=True))
            yield _document(values, json_keys, f"{path}, row {number}", size * number // rows)
