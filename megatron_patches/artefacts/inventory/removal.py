"""What may go, and why: leftovers of killed saves, damaged folders, and checkpoints that a copy stands for.

A plan comes first. Carrying it out makes the plan again and refuses where it is another one by now, so what goes is
what was read. A folder goes by one rename to `.deleted` before its files are removed, so it is never taken for whole.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from megatron_patches.artefacts.inventory.adoption import shelve
from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.inventory.copies import read_copies
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.atomic_files import fsync_folder
from megatron_patches.errors import TrainyardError

PINNED = "pinned.json"
_OLD_SECONDS = 24 * 3600
"""a folder in which nothing changed for a day is not being written"""


@dataclass(frozen=True)
class Removal:
    """One folder that may go."""

    folder: Path
    size: int
    """bytes"""
    reason: str
    what: Literal["leftover", "checkpoint"]


@dataclass(frozen=True)
class Plan:
    """Everything that may go, and what stays although it was asked about."""

    removals: list[Removal]
    kept: list[tuple[Path, str]]

    @property
    def digest(self) -> str:
        """Eight digits that name this plan."""
        content = json.dumps([[str(each.folder), each.size, each.reason] for each in self.removals])
        return hashlib.sha256(content.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay here although a verified copy lies elsewhere."""

    last: int = 2
    """the newest so many of a run"""
    every: int | None = None
    """and every one whose step divides by this"""


def plan_removal(catalogue: Catalogue, runs: Path, names: Sequence[str], retention: Retention | None) -> Plan:
    """Goes through these runs. Without a retention only leftovers and damaged folders are listed."""
    removals: list[Removal] = []
    kept: list[tuple[Path, str]] = []
    for name in names:
        removals += _leftovers(runs / name)
        if retention is not None:
            _go_through(catalogue, runs / name, retention, removals, kept)
    return Plan(removals, kept)


def carry_out(plan: Plan) -> int:
    """Removes what a plan lists; a folder that is gone by now is passed over. Returns the bytes that were freed."""
    freed = 0
    for each in plan.removals:
        if not each.folder.exists():
            continue
        if each.what == "checkpoint":
            leave_manifest(each.folder)
        remove_folder(each.folder)
        freed += each.size
    return freed


def why_it_stays(checkpoint: Artefact, newer: int, gold: set[str], copies: set[str], retention: Retention) -> str:
    """Why a checkpoint may not be removed here; empty where it may.

    Args:
        newer: how many full checkpoints of its run have a later step.
        gold: ids that were promoted.
        copies: ids of which a whole copy was verified at a location.
    """
    if (checkpoint.folder / PINNED).exists():
        return "pinned"
    if checkpoint.id in gold:
        return "gold"
    if checkpoint.content == "full" and newer < retention.last:
        return f"one of the newest {retention.last}, from which the run resumes"
    if retention.every and checkpoint.step is not None and checkpoint.step % retention.every == 0:
        return f"step divides by {retention.every}"
    return "" if checkpoint.id in copies else "no verified whole copy at any location; `tools/sync-to-hub` makes one"


def leave_manifest(folder: Path) -> None:
    """Keeps a checkpoint's manifest under `elsewhere/` before its files go: lineage and copies hang on it."""
    manifest = read_manifest(folder / "manifest.json")
    shelve(folder.parents[1] / "elsewhere" / f"{folder.name}-{manifest.id[:8]}", manifest, None)


def remove_folder(folder: Path) -> None:
    """Removes a folder so that no instant shows half of it under its own name."""
    doomed = folder if folder.name.endswith(".deleted") else folder.with_name(f"{folder.name}.deleted")
    if doomed != folder:
        if doomed.exists():
            shutil.rmtree(doomed)
        try:
            folder.rename(doomed)
        except FileNotFoundError:
            return  # another process removed it
        fsync_folder(folder.parent)
    shutil.rmtree(doomed, ignore_errors=True)
    if doomed.exists():
        raise TrainyardError(f"{doomed} could not be removed whole; correct its permissions, then run gc again")


def _leftovers(run: Path) -> list[Removal]:
    found = []
    for shelf in ("checkpoints", "exports", "elsewhere"):
        for folder in sorted((run / shelf).glob("*")):
            if folder.name.endswith(".deleted"):
                found.append(Removal(folder, folder_size(folder), "its removal was interrupted", "leftover"))
            elif folder.name.endswith(".partial") and _is_old(folder):
                found.append(Removal(folder, folder_size(folder), "left by a save that was killed", "leftover"))
            elif ".replaced-" in folder.name and _is_old(folder):
                found.append(Removal(folder, folder_size(folder), "damaged, and written anew since", "leftover"))
    return found


def _go_through(
    catalogue: Catalogue, run: Path, retention: Retention, removals: list[Removal], kept: list[tuple[Path, str]]
) -> None:
    checkpoints = catalogue.artefacts(
        "run = ? AND kind = 'checkpoint' AND whereabouts = 'here'", [run.name], "ORDER BY step DESC"
    )
    gold = {
        each for (each,) in catalogue.rows("SELECT artefact FROM words WHERE run = ? AND word = 'gold'", [run.name])
    }
    copies = {copy.id for copy in read_copies(run) if copy.whole and copy.verified and not copy.problem}
    full_steps = [each.step or 0 for each in checkpoints if each.content == "full" and each.state == "valid"]
    for each in checkpoints:
        if each.folder.parent != run / "checkpoints":
            continue
        newer = sum(step > (each.step or 0) for step in full_steps)
        if reason := why_it_stays(each, newer, gold, copies, retention):
            kept.append((each.folder, reason))
        else:
            removals.append(Removal(each.folder, each.size, "a verified copy lies at a location", "checkpoint"))


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder; a file that vanishes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _is_old(folder: Path) -> bool:
    try:
        times = [path.stat().st_mtime for path in (folder, *folder.rglob("*"))]
    except FileNotFoundError:
        return False  # somebody is at work in it
    return abs(time.time() - max(times)) > _OLD_SECONDS
