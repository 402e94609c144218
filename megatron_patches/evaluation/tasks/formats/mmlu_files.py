"""MMLU's folder as it was published: `test/anatomy_test.csv`, `dev/anatomy_dev.csv`, rows without a header."""

import csv
import hashlib
import io
from pathlib import Path
from typing import NamedTuple

from data_tools.reading.entries import Entry
from megatron_patches.artefacts.evaluations.result import DataFile
from megatron_patches.errors import Damaged, Missing, TrainyardError
from megatron_patches.evaluation.tasks.formats.rows import data_file
from megatron_patches.foreign.files import names_in, read_bounded
from megatron_patches.foreign.printable import printable

_COLUMNS = 6


class Folder(NamedTuple):
    """Rows of all subjects, with the keys of a file of rows."""

    asked: list[Entry]
    solved: list[Entry]
    data: tuple[DataFile, ...]


def read_folder(folder: Path) -> Folder:
    """Reads the questions of `test/` (where there is none, those of `val/`), and the solved ones of `dev/`.

    Raises:
        Missing: there are no questions.
        TrainyardError: a file is none of CSV with six columns.
    """
    split = next((split for split in ("test", "val") if _files(folder, split)), None)
    if split is None:
        raise Missing(
            f"{printable(folder)} has no test/SUBJECT_test.csv, as the published folder of MMLU has; name that folder, "
            "or a file of rows"
        )
    asked, solved = _rows(folder, split), _rows(folder, "dev")
    return Folder(asked.rows, solved.rows, tuple(each.data for each in (asked, solved) if each.rows))


class _Split(NamedTuple):
    rows: list[Entry]
    data: DataFile


def _files(folder: Path, split: str) -> dict[str, Path]:
    """The files of a split by subject."""
    ending = f"_{split}.csv"
    names = [name for name in names_in(folder / split) if name.endswith(ending) and name != ending]
    return {name.removesuffix(ending): folder / split / name for name in names}


def _rows(folder: Path, split: str) -> _Split:
    """All rows of a split, and what a result says of its files: the hash is that of their names and own hashes."""
    rows, listed = list[Entry](), hashlib.sha256()
    for subject, path in _files(folder, split).items():
        content = read_bounded(path)
        rows += _rows_of(content, subject, path)
        listed.update(f"{subject} {hashlib.sha256(content).hexdigest()}\n".encode())
    return _Split(rows, data_file(folder / split, listed.hexdigest(), len(rows)))


def _rows_of(content: bytes, subject: str, path: Path) -> list[Entry]:
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        found = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise Damaged(f"{printable(path)} is not UTF-8 ({error.reason} at byte {error.start:,})") from None
    except csv.Error as error:
        raise Damaged(f"{printable(path)} is not CSV ({error}); copy it again") from None
    if not found:
        raise Damaged(f"{printable(path)} is empty; copy it again, or remove it")
    return [_entry(row, subject, number, f"{printable(path)}, line {number}") for number, row in found]


def _entry(row: list[str], subject: str, number: int, where: str) -> Entry:
    if len(row) != _COLUMNS:
        raise TrainyardError(
            f"{where} has {len(row)} columns, expected {_COLUMNS}: question, four choices, answer; correct the row"
        )
    question, *choices, answer = row
    return Entry({"question": question, "subject": subject, "choices": choices, "answer": answer}, number, where)
