"""What a run begins from where it has no checkpoint of its own: another checkpoint's weights, found once by its launch
and written down for its ranks. Torch-free."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.run_folder import IMPORTS
from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Damaged, Missing
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_object, whole_of
from megatron_patches.foreign.printable import printable
from megatron_patches.parameters.row import ParameterRow
from megatron_patches.parameters.tensor_slice import Range
from megatron_patches.sizes import counted

INITIAL_WEIGHTS = "initial-weights.json"
"""in a launch's folder: what the run begins from"""
INITIAL = "initial_weights"
"""fact of a checkpoint: what its run began from, as `InitialWeights.as_fact` gives it"""
TOKENIZER_VOCABULARY = "tokenizer_vocabulary"
"""fact of a checkpoint: largest id that its tokenizer gives, plus one; rows behind it are padding"""
_BYTES = 1 << 22
_STEPS = 10**10
_ROWS = 1 << 40
_TOLD = 5


@dataclass(frozen=True)
class TakenRows:
    """Which rows of a stored table are taken, where they are not all, or not as many as the live table has."""

    stored: int
    """rows of the stored table"""
    ranges: tuple[Range, ...]
    """half-open ranges of rows; all other rows of the live table keep their initial draw"""

    @property
    def count(self) -> int:
        """Rows that are taken."""
        return sum(stop - start for start, stop in self.ranges)


@dataclass(frozen=True)
class InitialWeights:
    """A checkpoint whose weights a run begins with."""

    named: str
    """`init_from` as it was written"""
    run: str
    step: int
    id: str
    """of its manifest"""
    folder: str
    """absolute path"""
    rows: Mapping[str, TakenRows] = field(default_factory=dict)
    """by name of a parameter, where not all rows are taken"""

    @property
    def whose(self) -> str:
        """RUN@STEP, or the folder of transformers that a launch imported."""
        return self.named if Path(self.folder).parent.name == IMPORTS else f"{self.run}@{self.step}"

    def as_fact(self) -> dict[str, Any]:
        """What checkpoints say of it."""
        return {"named": self.named, "run": self.run, "step": self.step, "id": self.id}


def write_initial_weights(launch_folder: Path, start: InitialWeights) -> None:
    """Write it down for the ranks of a launch."""
    write_atomically(launch_folder / INITIAL_WEIGHTS, (json.dumps(asdict(start), indent=2) + "\n").encode())


def read_initial_weights(launch_folder: Path) -> InitialWeights | None:
    """What the launch found; None where it begins from no other run's weights.

    Raises:
        Damaged: the file is not what `write_initial_weights` writes.
    """
    path = launch_folder / INITIAL_WEIGHTS
    try:
        facts = parse_object(read_bounded(path, _BYTES), printable(path))
    except Missing:
        return None
    step, rows = whole_of(facts.get("step"), _STEPS), facts.get("rows")
    texts = {name: facts.get(name) for name in ("named", "run", "id", "folder")}
    taken = {name: _taken(each) for name, each in rows.items()} if isinstance(rows, dict) else None
    if step is None or taken is None or not all(isinstance(text, str) for text in texts.values()):
        raise _odd(path)
    whole = {name: each for name, each in taken.items() if each is not None}
    if len(whole) != len(taken):
        raise _odd(path)
    return InitialWeights(step=step, rows=whole, **texts)  # type: ignore[arg-type]  # they are text


def _odd(path: Path) -> Damaged:
    return Damaged(f"{printable(path)} does not say what the run begins from; start the run again")


def _taken(facts: Any) -> TakenRows | None:
    """None where it is not in the form that is written."""
    if not isinstance(facts, dict):
        return None
    stored, pairs = whole_of(facts.get("stored"), _ROWS), facts.get("ranges")
    if stored is None or not isinstance(pairs, list):
        return None
    ranges = []
    for pair in pairs:
        start, stop = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        low, high = whole_of(start, _ROWS), whole_of(stop, _ROWS)
        if low is None or high is None or not low < high <= stored:
            return None
        ranges.append((low, high))
    return TakenRows(stored, tuple(ranges))


@dataclass(frozen=True)
class Vocabularies:
    """Token ids that are in use, of the run that began and of the one that begins from it."""

    before: int
    """ids 0 ... before - 1 may have been targets; rows behind them were padding"""
    now: int
    fresh: tuple[int, ...] = ()
    """ids below `before` that stood for nothing, and are tokens now, in order"""


@dataclass(frozen=True)
class Fit:
    """How a checkpoint's weights fit a model."""

    rows: dict[str, TakenRows]
    problems: list[str]
    told: list[str]
    """of which tables not all rows are taken, for people"""


def fit_weights(rows: Sequence[ParameterRow], stored: Mapping[str, tuple[int, ...]], vocabularies: Vocabularies) -> Fit:
    """Compare the shapes of a checkpoint's weights with a model's.

    Tables with a row for each token id or position may have another number of them (`ParameterRow.row_for_each`).
    Positions that both have are taken. Of a vocabulary the ids that were in use are taken, and of the padding what is
    padding still; padding that is in use now is not, since it was trained as what never comes next. Whatever is not
    taken keeps its initial draw.
    """
    taken: dict[str, TakenRows] = {}
    problems, told = list(_only_in_one(rows, stored)), []
    for row in rows:
        shape = stored.get(row.name, row.shape)
        if shape[1:] != row.shape[1:] or (shape != row.shape and row.row_for_each is None):
            problems.append(f"{row.name} has shape {_shown(shape)} there and {_shown(row.shape)} here")
            continue
        if row.row_for_each == "vocabulary" and vocabularies.now < (live := min(shape[0], vocabularies.before)):
            problems.append(
                f"{row.name} has {live:,} token ids in use there, and {vocabularies.now:,} here: set model.vocab_size "
                f"to {live} or more"
            )
            continue
        ranges = _ranges(row, shape[0], vocabularies)
        if shape == row.shape and ranges == ((0, shape[0]),):
            continue
        taken[row.name] = each = TakenRows(shape[0], ranges)
        drawn = row.shape[0] - each.count
        told.append(
            f"{row.name}: {each.count:,} of {counted(shape[0], 'row')} taken"
            + (f", {counted(drawn, 'row')} drawn by this run" if drawn else "")
        )
    return Fit(taken, problems, told)


def _only_in_one(rows: Sequence[ParameterRow], stored: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    names = {row.name for row in rows}
    for said, found in (("it lacks", names - stored.keys()), ("the model lacks", stored.keys() - names)):
        if found:
            more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
            yield f"{said} {', '.join(sorted(found)[:_TOLD])}{more}"


def _ranges(row: ParameterRow, stored: int, vocabularies: Vocabularies) -> tuple[Range, ...]:
    """Rows of a stored table that are taken; neighbours are joined."""
    common = min(stored, row.shape[0])
    if row.row_for_each != "vocabulary":
        return ((0, common),)
    edges = [0, min(common, vocabularies.before)]
    for number in (each for each in vocabularies.fresh if each < edges[-1]):
        edges[-1:] = [number, number + 1, edges[-1]]
    padding = (max(vocabularies.before, vocabularies.now), common)
    found: list[Range] = []
    for start, stop in (*zip(edges[::2], edges[1::2], strict=True), padding):
        if start < stop:
            joined = found and found[-1][1] == start
            found[-1:] = [(found[-1][0], stop)] if joined else [*found[-1:], (start, stop)]
    return tuple(found)


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{size:,}" for size in shape)
