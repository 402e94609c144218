"""The dated record of measurements: JSON lines under benchmarks/, from which the guide's tables are made.

A line is a measurement, or a row that waits for one: `{"table": ..., "row": ..., "command": ..., "unmeasured": why}`.
A measurement under the same table and row takes its place. Torch-free.
"""

import json
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_patches.benchmark.comparison import Benchmark
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable

FOLDER = Path("benchmarks")
"""within the checkout"""


@dataclass(frozen=True)
class Row:
    """One line of a record."""

    table: str
    row: str
    command: str
    found: dict[str, Any] | None
    """what `Benchmark` has; None where nothing was measured"""
    unmeasured: str | None = None
    """why"""


def append(path: Path, row: Row) -> None:
    """Add a line, and be sure that it is on the disk: a record of hours of measuring is not to be lost with a job."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:  # O_APPEND: array tasks may share the file
        file.write(json.dumps(asdict(row), allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def measured(table: str, row: str, command: Sequence[str], found: Benchmark) -> Row:
    """The line of a measurement."""
    return Row(table, row, shlex.join(command), asdict(found) | {"mfu": found.mfu, "agrees": found.agrees})


def read_rows(paths: Iterable[Path]) -> list[Row]:
    """All lines of some records, in the order of the first line of each (table, row); the latest of each counts.

    Raises:
        TrainyardError: a line is no row; the file and the line are named.
    """
    latest: dict[tuple[str, str], Row] = {}
    for path in paths:
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                row = Row(**parse_object(line, f"{printable(path)}:{number}"))
            except (TrainyardError, TypeError) as error:
                raise TrainyardError(
                    f"{printable(path)}:{number}: no row of a record ({printable(error)}); remove the line"
                ) from None
            known = latest.get((row.table, row.row))
            if known is None or row.found is not None:
                latest[row.table, row.row] = row
    return list(latest.values())


def record_files(checkout: Path) -> list[Path]:
    """Every record, oldest first by its name's date."""
    return sorted((checkout / FOLDER).glob("*.jsonl"))
