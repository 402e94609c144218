"""The numbers of a run's steps as columns: a view of many long runs has no time for an object for each step.

Lines as EventWriter writes them, all numbers finite, hashes among them, are taken apart by one pattern; any other line
is parsed as an event, with the same errors.
"""

import re
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.events.reading import NOT_FINITE, TOLD_PER_FILE, event_files, lines_in, parse_event
from megatron_patches.foreign.files import open_plain
from megatron_patches.foreign.json_text import number_of
from megatron_patches.foreign.printable import printable

_STEP = b'{"kind": "step"'
_NUMBER = rb"-?[0-9]{1,19}(?:\.[0-9]{1,25})?(?:[eE][+-]?[0-9]{1,2})?"


@dataclass(frozen=True)
class StepColumns:
    """What was recorded of each step, less what a later launch rolled back; by step, each step once."""

    steps: NDArray[np.int64]
    began: NDArray[np.int64]
    """of each step, the step at which its launch began"""
    numbers: dict[str, NDArray[np.float64]]
    """by name; NaN where a step has no such number, or none that is finite was measured"""

    def __len__(self) -> int:
        return len(self.steps)


def empty_columns(names: Collection[str]) -> StepColumns:
    """Those of a run that was never launched."""
    nothing = np.zeros(0, dtype=np.int64)
    return StepColumns(nothing, nothing, {name: np.zeros(0) for name in names})


def scan_steps(folder: Path, wanted: Collection[str], written: Sequence[str]) -> tuple[StepColumns, list[str]]:
    """The steps of a run's events, and a sentence for each thing that cannot be read.

    Args:
        wanted: names of the columns.
        written: all names that a step's event may have behind its step, in the order in which they are written.
    """
    problems: list[str] = []
    names = [name for name in written if name in wanted]
    pattern = _pattern(names, written)
    table = array("d")
    starts: list[tuple[int, int]] = []
    files = event_files(folder, problems)
    for path in sorted(files, key=lambda path: (len(_launch(path)), _launch(path))):
        try:
            _read(path, names, pattern, table, starts, problems)
        except TrainyardError as error:
            problems.append(str(error))
    rows = np.array(table, dtype=np.float64).reshape(-1, 1 + len(names))
    return _effective(rows, starts, names), problems


def _launch(path: Path) -> str:
    return path.stem.split("-", 1)[0]


def _pattern(names: Sequence[str], written: Sequence[str]) -> re.Pattern[bytes]:
    pattern = rb'\{"kind": "step", "time": "[0-9]{4}-[0-9T:.-]{12,20}\+00:00", "step": ([0-9]{1,10})'
    for name in written:
        value = b"(" + _NUMBER + b")" if name in names else b"(?:" + _NUMBER + rb'|null|"[0-9a-z]{1,40}")'
        pattern += b'(?:, "' + re.escape(name).encode() + b'": ' + value + b")?"
    return re.compile(pattern + rb"\}\n")


def _read(
    path: Path,
    names: Sequence[str],
    pattern: re.Pattern[bytes],
    table: "array[float]",
    starts: list[tuple[int, int]],
    problems: list[str],
) -> None:
    """Adds rows of a step and its numbers to the table; to the starts the count of rows before each, and its step."""
    bad, width = 0, 1 + len(names)
    with open_plain(path) as file:
        for number, line in lines_in(file, path, ("start", "step"), problems):
            if found := pattern.fullmatch(line):
                table.extend(map(float, found.groups(b"nan")))
                continue
            try:
                event = parse_event(line, "", f"{printable(path)}:{number}")
            except Damaged as error:
                bad += 1
                if bad <= TOLD_PER_FILE:
                    problems.append(str(error))
                continue
            step = event.facts["step"]
            if event.kind == "start":
                starts.append((len(table) // width, step))
            else:
                table.extend([step, *(measured(event.facts.get(name)) for name in names)])
    if bad > TOLD_PER_FILE:
        problems.append(f"{printable(path)} has {bad - TOLD_PER_FILE:,} more lines that are no events")


def measured(value: Any) -> float:
    """A number of an event as EventWriter wrote it, also one that is not finite; NaN for anything else."""
    if isinstance(value, str) and value in NOT_FINITE:
        return float(value)
    number = number_of(value)
    return float("nan") if number is None else number


def _effective(rows: NDArray[np.float64], starts: Sequence[tuple[int, int]], names: Sequence[str]) -> StepColumns:
    steps = rows[:, 0].astype(np.int64)
    kept = np.ones(len(rows), dtype=bool)
    began = np.zeros(len(rows), dtype=np.int64)
    for before, step in starts:
        kept[:before] &= steps[:before] <= step
        began[before:] = step
    steps, began, rows = steps[kept], began[kept], rows[kept]
    # of a step that is there twice, which no launch of one owner writes, the last
    unique, last = np.unique(steps[::-1], return_index=True)
    order = len(steps) - 1 - last
    return StepColumns(unique, began[order], {name: rows[order, 1 + at] for at, name in enumerate(names)})
