"""Files of GLUE's tasks: its own tables, whose columns are parted by tabs and know no quotes, or rows with keys."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data_tools.reading.entries import Entry
from megatron_patches.artefacts.evaluations.result import DataFile
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.evaluation.tasks.formats.glue import GlueFormat
from megatron_patches.evaluation.tasks.formats.local_format import Source
from megatron_patches.evaluation.tasks.formats.rows import data_file, read_rows, text_in
from megatron_patches.foreign.files import is_folder, names_in, read_bounded
from megatron_patches.foreign.printable import printable, shortened

_TABLE = ".tsv"
_LARGEST = 1 << 30
"""bytes of a table: MNLI's has 79 MB"""
_ENDINGS = (_TABLE, ".jsonl", ".json", ".parquet", ".jsonl.gz", ".jsonl.zst")
_DEV = ("dev", "validation")
"""how GLUE and the hub call what is asked"""


class Labelled(NamedTuple):
    """A sentence or a pair with its label."""

    texts: tuple[str, ...]
    label: float
    """number of the label, or the score"""
    part: str | None = None


@dataclass(frozen=True)
class LabelledTexts:
    """All that was read for a task, and checked."""

    train: Sequence[Labelled]
    asked: Sequence[Labelled]
    data: tuple[DataFile, ...]
    """of what is asked, then of train"""


def read_glue(format: GlueFormat, source: Source) -> LabelledTexts:
    """Reads a folder with the files of both, or a file of each.

    Raises:
        Missing: a file is not there.
        Refused: no file to learn from is named.
        TrainyardError: a file is none of the format, or has no labels.
    """
    assert source.path is not None, "a format with files"
    if not is_folder(source.path):
        if source.examples is None:
            raise Refused(
                f"{printable(source.path)} is one file; name the folder of the task, or a file to ask and one to learn "
                f"from: {format.word}:DEV+TRAIN"
            )
        train, asked = source.examples, dict[str | None, Path]({None: source.path})
    elif source.examples is not None:
        raise Refused(
            f"{printable(source.path)} is a folder, whose train file is read; leave out +{printable(source.examples)}"
        )
    else:
        asked = _asked_files(format, source.path)
        train = _found(source.path, ("train",))
    read = {part: _read(format, path, part) for part, path in asked.items()}
    learned = _read(format, train, None)
    return LabelledTexts(
        learned.rows,
        [row for file in read.values() for row in file.rows],
        (*(file.data for file in read.values()), learned.data),
    )


def _asked_files(format: GlueFormat, folder: Path) -> dict[str | None, Path]:
    if not format.parts:
        return {None: _found(folder, _DEV)}
    return {part: _found(folder, [f"{name}_{part}" for name in _DEV]) for part in format.parts}


def _found(folder: Path, names: Sequence[str]) -> Path:
    there = set(names_in(folder))
    candidates = [f"{name}{ending}" for name in names for ending in _ENDINGS if f"{name}{ending}" in there]
    if not candidates:
        raise Missing(
            f"{printable(folder)} has no {' and no '.join(f'{name}{_TABLE}' for name in names)} (or .jsonl, .json, "
            ".parquet); name the folder of the task, or its files: DEV+TRAIN"
        )
    if len(candidates) > 1:
        raise Refused(f"{printable(folder)} has {' and '.join(candidates)}, of which one is read; move the others away")
    return folder / candidates[0]


class _File(NamedTuple):
    rows: list[Labelled]
    data: DataFile


def _read(format: GlueFormat, path: Path, part: str | None) -> _File:
    if path.name.endswith(_TABLE):
        entries, sha256 = _table(format, path)
        keys = format.columns
    else:
        file = read_rows(path, (*format.texts, "label"))
        entries, sha256, keys = file.rows, str(file.data.sha256), (*format.texts, "label")
    rows = [_labelled(format, entry, keys, part) for entry in entries]
    return _File(rows, data_file(path, sha256, len(rows)))


def _labelled(format: GlueFormat, row: Entry, keys: Sequence[str], part: str | None) -> Labelled:
    *texts, label = keys
    number = _score(row, label) if format.is_score else _number(row, label, format.labels)
    return Labelled(tuple(text_in(row, key, may_be_empty=True) for key in texts), number, part)


def _number(row: Entry, key: str, labels: Sequence[str]) -> float:
    given: Any = row.values[key]
    if isinstance(given, str) and given.strip() in labels:
        return float(labels.index(given.strip()))
    number = _float(given)
    if number not in range(len(labels)):
        raise TrainyardError(f"{row.where}: {key!r} {_not_a_label(given)}, expected one of {', '.join(labels)}")
    return number


def _score(row: Entry, key: str) -> float:
    given: Any = row.values[key]
    number = _float(given)
    if not 0 <= number <= 5:
        raise TrainyardError(f"{row.where}: {key!r} {_not_a_label(given)}, expected a score from 0 to 5")
    return number


def _float(given: object) -> float:
    """NaN of what is no number."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return math.nan
    try:
        return float(given)
    except (ValueError, OverflowError):
        return math.nan


def _not_a_label(given: object) -> str:
    if given in (None, "", -1, "-1", -1.0):
        return f"is {given!r}, as in a test set without answers (take a file with answers)"
    return f"is {shortened(given, 40)}"


def _table(format: GlueFormat, path: Path) -> tuple[list[Entry], str]:
    """Rows of a table by the names of their columns, and its hash."""
    content = read_bounded(path, _LARGEST)
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise Damaged(f"{printable(path)} is not UTF-8 ({error.reason} at byte {error.start:,})") from None
    cells = [line.removesuffix("\r").split("\t") for line in lines]
    names = format.first_line or tuple(cells[0])
    if lacking := [name for name in format.columns if name not in names]:
        raise TrainyardError(
            f"{printable(path)} has no column {', '.join(map(repr, lacking))} in its first line; {format.word} expects "
            f"{', '.join(map(repr, format.columns))}"
        )
    first = 0 if format.first_line else 1
    rows = list(_rows(format, names, cells[first:], first + 1, printable(path)))
    if not rows:
        raise Damaged(f"{printable(path)} has no rows; copy it again, or name another file")
    return rows, hashlib.sha256(content).hexdigest()


def _rows(
    format: GlueFormat, names: Sequence[str], lines: Sequence[Sequence[str]], number: int, origin: str
) -> Iterator[Entry]:
    places = {name: list(names).index(name) for name in format.columns}
    needed = max(places.values()) + 1
    for line, cells in enumerate(lines, number):
        where = f"{origin}, line {line}"
        if cells == [""]:
            continue  # the empty line after the last line break
        if len(cells) >= needed:
            yield Entry({name: cells[place] for name, place in places.items()}, line, where)
        elif not format.drops_short_lines:
            raise TrainyardError(f"{where} has {len(cells)} columns, expected {needed} or more; correct the line")
