"""A run's course through its launches: which of its checkpoints lie on the present branch, and which were left behind
by a launch that went on from an earlier step. Torch-free; what comes from what is descent.py's.

Each launch writes down at which step it begins (`began.json` in its folder), and so does a rollback, which has a number
among the launches.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.descent import RUN_ID, Position, branch_of, number_of_launch
from megatron_patches.artefacts.manifest import MANIFEST, read_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Damaged, Missing, TrainyardError
from megatron_patches.foreign.files import names_in, read_bounded
from megatron_patches.foreign.json_text import parse_object, whole_of
from megatron_patches.foreign.printable import printable

BEGAN = "began.json"
"""in a launch's folder: where it begins"""
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


def left_behind(
    saved: Sequence[Position], beginnings: Sequence[Beginning], went_on: Collection[int] = ()
) -> list[Beginning | None]:
    """Of each checkpoint, the first beginning by which it was left behind; None where it lies on the present branch.

    A launch that began at an earlier step leaves later checkpoints of older launches behind as soon as it has saved
    itself; until then they are the furthest that the run has come. A rollback does so at once.

    Args:
        went_on: further launches that saved something, none of which is among `saved` any more.
    """
    savers = {each.launch for each in saved} | set(went_on)
    counting = [each for each in beginnings if each.rollback or each.launch in savers]

    def first_that_leaves(position: Position) -> Beginning | None:
        leaving = [each for each in counting if each.launch > position.launch and each.step < position.step]
        return min(leaving, key=lambda each: each.launch, default=None)

    return [first_that_leaves(position) for position in saved]


def why_left(by: Beginning) -> str:
    """What people read of a checkpoint that this beginning left behind."""
    what = f"rollback {by.launch} went back to" if by.rollback else f"launch {by.launch} went on from"
    return f"left behind: {what} step {by.step}"


def abandoned(run: RunFolder, saved: Mapping[Path, Mapping[str, Any]]) -> dict[Path, Beginning]:
    """Which of a run's checkpoints were left behind, by folder, and by which beginning.

    Args:
        saved: the facts of every checkpoint there is; those that are full say which launches came so far as to save.

    Raises:
        Damaged: a record of a beginning, or the run's manifest, cannot be read.
    """
    beginnings = read_beginnings(run)
    if not beginnings or not saved:
        return {}
    run_id = id_of_run(run)
    went_on: set[int] = set()
    for facts in saved.values():
        if facts.get("content") != "weights":
            went_on |= {launch_of(facts, run_id), *(each.launch for each in _branch_here(facts, run_id))}
    counting = [each for each in beginnings if each.rollback or each.launch in went_on]
    positions = [
        Position(launch_of(facts, run_id), whole_of(facts.get("step"), _STEPS) or 0) for facts in saved.values()
    ]
    found = zip(saved, left_behind(positions, counting, went_on), strict=True)
    return {folder: by for folder, by in found if by is not None}


def on_present_branch(run: RunFolder, folders: Iterable[Path]) -> list[Path]:
    """Those of a run's full checkpoints that were not left behind; one whose manifest cannot be read stays among them.

    Raises:
        Damaged: a record of a beginning, or the run's manifest, cannot be read.
    """
    among = list(folders)
    left = abandoned(run, stated_facts(among)) if read_beginnings(run) else {}
    return [folder for folder in among if folder not in left]


def stated_facts(folders: Iterable[Path]) -> dict[Path, Mapping[str, Any]]:
    """What the manifests in these folders state; those that cannot be read are left out, and are told by `inspect`."""
    found: dict[Path, Mapping[str, Any]] = {}
    for folder in folders:
        with suppress(TrainyardError, OSError):
            found[folder] = read_manifest(folder / MANIFEST).facts
    return found


def id_of_run(run: RunFolder) -> str | None:
    """Id of a run's manifest; None where it has none, such as a folder that only checkpoints were copied to.

    Raises:
        Damaged: it was changed after it was written.
    """
    try:
        return read_manifest(run.manifest).id
    except Missing:
        return None


def launch_of(facts: Mapping[str, Any], run_id: str | None) -> int:
    """Number of the run's launch that saved a checkpoint; 0 for what came from elsewhere: it is older than all."""
    return number_of_launch(facts.get("launch")) if facts.get(RUN_ID) in (None, run_id) else 0


def _branch_here(facts: Mapping[str, Any], run_id: str | None) -> tuple[Position, ...]:
    return branch_of(facts) if facts.get(RUN_ID) in (None, run_id) else ()
