"""Rows of a file of items: JSON lines, arrays and parquet, packed or not, each with its place for errors."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_tools.reading.documents import LARGEST_DOCUMENT, TEXT, form_of
from data_tools.reading.entries import Entry, checked_bytes, entries_of, text_of
from data_tools.reading.files.file_part import FilePart
from data_tools.reading.files.parts import file_part
from data_tools.reading.files.rows_part import RowsPart
from data_tools.reading.files.sources import parts_of
from megatron_patches.artefacts.evaluations.result import DataFile
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.evaluation.tasks.formats.local_format import Document, Questions, Source
from megatron_patches.foreign.files import is_folder
from megatron_patches.foreign.json_text import kind_of
from megatron_patches.foreign.printable import printable, shortened, storable

_EXPECTED = "`tools/evals tasks`, which shows a row of each format"
_DIGITS = re.compile(r"[0-9]{1,9}")


class RowsFile(NamedTuple):
    """A file's rows, in order, and what a result says of it."""

    rows: list[Entry]
    data: DataFile


def read_rows(path: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> RowsFile:
    """Reads a file whose rows have the keys.

    Args:
        optional: keys that a row may have; of parquet, the columns that are read where they are there.

    Raises:
        Missing: there is no such file.
        TrainyardError: it is empty, of an unknown format, or a row is no object or lacks a key.
    """
    if is_folder(path):
        raise Refused(f"{printable(path)} is a folder, where a file is expected; name one of its files")
    if form_of(path.name) == TEXT:
        raise Refused(f"{printable(path)} is one text, where rows are expected; see {_EXPECTED}")
    part = _part(path, keys, optional)
    rows = list[Entry]()
    for block in part.blocks(hashed=True):
        entries, bad = entries_of(block, keys, LARGEST_DOCUMENT, _EXPECTED)
        if bad:
            raise TrainyardError(bad[0].reason)
        rows += entries
    if not rows:
        raise Damaged(f"{printable(path)} has no rows; copy it again, or name another file")
    return RowsFile(rows, data_file(path, part.content().sha256, len(rows)))


def read_questions(
    source: Source, keys: Sequence[str], document: Callable[[Entry], Document], optional: Sequence[str] = ()
) -> tuple[Questions, tuple[DataFile, ...]]:
    """The items of a task whose solved items are a file of the same rows.

    Args:
        keys, optional: as `read_rows` has them.
        document: what lm-eval gets of a row.

    Raises:
        TrainyardError: as `read_rows`, or `document` refuses a row.
    """
    files = [read_rows(path, keys, optional) for path in (source.path, source.examples) if path is not None]
    documents = [[document(row) for row in file.rows] for file in files]
    solved = documents[1] if source.examples is not None else []
    return Questions(documents[0], solved), tuple(file.data for file in files)


def data_file(path: Path, sha256: str, rows: int) -> DataFile:
    """What a result says of a file of items."""
    return DataFile(name=storable(path), sha256=sha256, rows=rows)


def _part(path: Path, keys: Sequence[str], optional: Sequence[str]) -> FilePart:
    part = parts_of([path], keys, option=_EXPECTED).parts[0]
    if not isinstance(part, RowsPart):
        return part
    there = part.columns()
    wanted = [*keys, *(key for key in optional if key in there)]
    return file_part(path, part.name, wanted, option=_EXPECTED)


def text_in(row: Entry, key: str, may_be_empty: bool = False) -> str:
    """The text under a key.

    Raises:
        TrainyardError: it is none, empty, or cannot be written in UTF-8.
    """
    text = text_of(row, key)
    if not may_be_empty and not text.strip():
        raise TrainyardError(f"{row.where}: {key!r} is empty; correct or remove the row")
    checked_bytes(row.where, [(repr(key), text)], LARGEST_DOCUMENT)
    return text


def texts_in(row: Entry, key: str, least: int, most: int | None = None, may_be_empty: bool = False) -> list[str]:
    """The list of texts under a key.

    Raises:
        TrainyardError: it is none, or has too few or too many of them, or one is no text or empty.
    """
    given: Any = row.values[key]
    if not isinstance(given, list):
        raise TrainyardError(f"{row.where}: {key!r} is {kind_of(given)}, expected a list of texts; correct the row")
    if len(given) < least or (most is not None and len(given) > most):
        expected = f"{least}" if least == most else f"at least {least}"
        raise TrainyardError(f"{row.where}: {key!r} has {len(given)} texts, expected {expected}; correct the row")
    named = Entry({f"{key}[{number}]": text for number, text in enumerate(given)}, row.number, row.where)
    return [text_in(named, name, may_be_empty) for name in named.values]


def choice_in(row: Entry, key: str, count: int, letters: str = "") -> int:
    """Which of the choices is right, from 0: a number, its digits as a text, or a letter.

    Args:
        letters: of the choices, where letters may name them.

    Raises:
        TrainyardError: none is named, as in rows of a test set whose answers are kept back, or one that is not there.
    """
    given: Any = row.values[key]
    number = given if isinstance(given, int) and not isinstance(given, bool) else None
    if isinstance(given, str):
        word = given.strip()
        number = int(word) if _DIGITS.fullmatch(word) else letters.find(word) if len(word) == 1 else None
    if number is None or not 0 <= number < count:
        none = given is None or given == ""
        found = "is empty, as in a test set without answers" if none else f"is {shortened(given, 40)}"
        named = f" or {letters[0]} to {letters[-1]}" if letters else ""
        remedy = "take a file with answers" if none else "correct the row"
        raise TrainyardError(f"{row.where}: {key!r} {found}, expected 0 to {count - 1}{named}; {remedy}")
    return number
