"""What a rollback leaves for the launches after it: `rollback.json` in a launch's folder of its own. Torch-free.

The newest rollback says which samples the run leaves out from there on: those that its checkpoint was saved with, and
those that were named. So going back before an earlier rollback takes back what that one left out.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from data_tools.samples.skipping import Range, ranges_of, united
from megatron_patches.artefacts.descent import number_of_launch
from megatron_patches.artefacts.run_folder import ROLLBACK, RunFolder
from megatron_patches.configuration.problems import Problem
from megatron_patches.errors import Damaged, Missing, TrainyardError
from megatron_patches.foreign.files import names_in, read_bounded
from megatron_patches.foreign.json_text import parse_object, whole_of
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.run.reading import ReadRun
from megatron_patches.run.run_directory import run_directory

_STEPS = 10**10
_BYTES = 1 << 22


@dataclass(frozen=True)
class RollbackRecord:
    """A rollback as it was asked for."""

    from_step: int
    """step of the newest checkpoint that the run had"""
    to_step: int
    checkpoint: str
    """id of the one that it went back to"""
    skip_samples: tuple[Range, ...]
    """all that is left out from there on, as `data.skip_samples`"""
    because: str
    by: str
    date: str
    """UTC, ISO 8601"""

    def content(self) -> bytes:
        """Of the file."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()


def read_rollback(launch_folder: Path) -> RollbackRecord | None:
    """The record of one launch; None where that launch is no rollback.

    Raises:
        Damaged: the record cannot be read; what is left out is not known then.
    """
    path = launch_folder / ROLLBACK
    try:
        return _parse(parse_object(read_bounded(path, _BYTES), printable(path)))
    except Missing:
        return None
    except TrainyardError as error:
        raise Damaged(
            f"{printable(path)} is no record of a rollback ({error}): restore the file, or roll back again to the step "
            "that is wanted"
        ) from None


def newest_rollback(run: RunFolder) -> RollbackRecord | None:
    """The rollback that counts; raises Damaged where it cannot be read."""
    names = names_in(run.launches) if run.launches.is_dir() else []
    for name in sorted(filter(number_of_launch, names), key=int, reverse=True):
        if (record := read_rollback(run.launches / name)) is not None:
            return record
    return None


def with_rollback(run: ReadRun) -> ReadRun:
    """A run that leaves out also what its newest rollback says; it has one more problem where that cannot be read."""
    try:
        record = newest_rollback(run_directory(run.config))
    except TrainyardError as error:
        return replace(run, problems=(*run.problems, Problem("data.skip_samples", str(error))))
    if record is None or not record.skip_samples:
        return run
    ranges = united([*record.skip_samples, *((first, end) for first, end in run.config.data.skip_samples)])
    data = run.config.data.model_copy(update={"skip_samples": [list(each) for each in ranges]})
    return replace(run, config=run.config.model_copy(update={"data": data}))


def _parse(facts: dict[str, Any]) -> RollbackRecord:
    steps = [whole_of(facts.get(name), _STEPS) for name in ("from_step", "to_step")]
    texts = [facts.get(name) for name in ("checkpoint", "because", "by", "date")]
    if None in steps or not all(isinstance(text, str) for text in texts):
        raise Damaged("it lacks a step or a text")
    from_step, to_step = (step or 0 for step in steps)
    checkpoint, because, by, date = map(str, texts)
    try:
        datetime.fromisoformat(date).timestamp()
    except (ValueError, OverflowError):
        raise Damaged(f"'{shortened(date, 40)}' is no time") from None
    skipped = united(ranges_of(facts.get("skip_samples")))
    return RollbackRecord(from_step, to_step, checkpoint, skipped, because, by, date)
