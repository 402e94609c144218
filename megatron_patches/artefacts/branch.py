"""A run's course through its launches: which of its checkpoints lie on the present branch, which were left behind by a
launch that went on from an earlier step, and which of two comes from the other. Torch-free.

Each launch writes down at which step it begins (`began.json` in its folder), and so does a rollback, which has a number
among the launches. Each checkpoint's manifest has its own way through the launches (`branch` among its facts), so that
descent is known also where the checkpoints between have been deleted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Damaged, Missing, TrainyardError
from megatron_patches.foreign.files import names_in, read_bounded
from megatron_patches.foreign.json_text import parse_object, whole_of
from megatron_patches.foreign.printable import printable

BEGAN = "began.json"
"""in a launch's folder: where it begins"""
BRANCH = "branch"
"""fact of a checkpoint: its way through the launches, as `[[launch, step at which it began], ...]`, oldest first"""
RUN_ID = "run_id"
"""fact of a checkpoint: id of its run's manifest, which tells two runs of one name apart"""
_STEPS = 10**10
_BYTES = 1 << 16


@dataclass(frozen=True)
class Beginning:
    """Where a launch began to train, or to what a rollback went back."""

    launch: int
    """its number"""
    step: int
    checkpoint: str | None
    """id of what it took its weights from; None where they were drawn"""
    rollback: bool = False
    """a person went back on purpose: it counts although nothing was saved since"""


@dataclass(frozen=True)
class Position:
    """Where on a run's course a checkpoint was saved."""

    launch: int
    """number of the launch that saved it; 0 for what no launch did, such as an import"""
    step: int


def number_of_launch(launch: object) -> int:
    """The number in a launch's id as manifests have it; 0 where it is none."""
    return int(launch) if isinstance(launch, str) and launch.isascii() and launch.isdecimal() else 0


def record_beginning(launch_folder: Path, beginning: Beginning) -> None:
    """Write `began.json` of a launch, before it trains."""
    write_atomically(launch_folder / BEGAN, (json.dumps(asdict(beginning)) + "\n").encode())


def read_beginnings(run: RunFolder) -> list[Beginning]:
    """Where the launches of a run began, oldest first; those that never did, and those of earlier versions, left out.

    Raises:
        Damaged: a record cannot be read: what it leaves behind is not known then.
    """
    names = names_in(run.launches) if run.launches.is_dir() else []
    found = [_read(run.launches / name / BEGAN, int(name)) for name in names if number_of_launch(name)]
    return sorted((each for each in found if each is not None), key=lambda each: each.launch)


def _read(path: Path, launch: int) -> Beginning | None:
    try:
        facts = parse_object(read_bounded(path, _BYTES), printable(path))
    except Missing:
        return None
    except TrainyardError as error:
        raise Damaged(f"{error}; it says where launch {launch} began: restore the file, or remove it") from None
    step, checkpoint = whole_of(facts.get("step"), _STEPS), facts.get("checkpoint")
    if step is None or not (checkpoint is None or isinstance(checkpoint, str)):
        raise Damaged(f"{printable(path)} does not say where launch {launch} began: restore the file, or remove it")
    return Beginning(launch, step, checkpoint, facts.get("rollback") is True)


def left_behind(saved: Sequence[Position], beginnings: Sequence[Beginning]) -> list[Beginning | None]:
    """Of each checkpoint, the beginning by which it was left behind; None where it lies on the present branch.

    A launch that began at an earlier step leaves later checkpoints of older launches behind as soon as it has saved
    itself; until then they are the furthest that the run has come. A rollback does so at once.
    """
    savers = {each.launch for each in saved}
    counting = [each for each in beginnings if each.rollback or each.launch in savers]

    def newest_that_leaves(position: Position) -> Beginning | None:
        leaving = [each for each in counting if each.launch > position.launch and each.step < position.step]
        return max(leaving, key=lambda each: each.launch, default=None)

    return [newest_that_leaves(position) for position in saved]


def branch_of(facts: Mapping[str, Any]) -> tuple[Position, ...]:
    """A checkpoint's way through the launches: each one's number, and the step at which it began, oldest first.

    Empty for checkpoints of earlier versions, and for those that no launch saved.
    """
    told = facts.get(BRANCH)
    if not isinstance(told, list):
        return ()
    pairs = [pair for pair in told if isinstance(pair, list) and len(pair) == 2]
    found = [Position(number_of_launch(launch), step) for launch, step in pairs if whole_of(step, _STEPS) is not None]
    return tuple(found) if len(found) == len(told) else ()


def as_fact(branch: Sequence[Position]) -> list[list[Any]]:
    """The inverse of `branch_of`."""
    return [[f"{each.launch:04d}", each.step] for each in branch]


def continued(branch: Sequence[Position], launch: int, step: int) -> tuple[Position, ...]:
    """The way of what a launch saves that began at `step`, from a checkpoint of this way."""
    return (*branch, Position(launch, step))


def comes_from(facts: Mapping[str, Any], earlier: Mapping[str, Any]) -> bool:
    """Whether a checkpoint comes from an earlier one of the same run, by the facts of both.

    False too where that is not known: of earlier versions manifests do not say it.
    """
    branch, launch = branch_of(facts), number_of_launch(earlier.get("launch"))
    step, own = whole_of(earlier.get("step"), _STEPS), whole_of(facts.get("step"), _STEPS)
    same_run = facts.get(RUN_ID) is not None and facts.get(RUN_ID) == earlier.get(RUN_ID)
    if not branch or not same_run or step is None or own is None:
        return False
    ends = [each.step + 1 for each in branch[1:]] + [own]  # a launch began with the very step that it took
    return any(each.launch == launch and step < end for each, end in zip(branch, ends, strict=True))
