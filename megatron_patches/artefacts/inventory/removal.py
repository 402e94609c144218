"""What may go, and why: leftovers of killed saves, damaged folders, and checkpoints that a copy stands for.

A plan comes first. Carrying it out makes the plan again and refuses where it is another one by now, so what goes is
what was read.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import Literal

from megatron_patches.artefacts.annotations import read_standing
from megatron_patches.artefacts.branch import abandoned, stated_facts, why_left
from megatron_patches.artefacts.deletion import link_target, refuse_link
from megatron_patches.artefacts.folders import TOKENIZER, is_replaced, is_spoilt, name_before, shelved_name
from megatron_patches.artefacts.inventory.adoption import shelve
from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.catalogue import Catalogue
from megatron_patches.artefacts.inventory.copies import read_copies
from megatron_patches.artefacts.manifest import MANIFEST, read_manifest
from megatron_patches.artefacts.marks import is_pinned
from megatron_patches.artefacts.retention import RetentionRules, known_checkpoints, reasons_to_stay
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.artefacts.unfinished import Unfinished, delete_folder, unfinished_kind
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.foreign.files import everything_beneath
from megatron_patches.foreign.printable import printable

_OLD_SECONDS = 24 * 3600
"""a folder in which nothing changed for a day is not being written"""
_LEFT_BY: Mapping[Unfinished, str] = {
    "save": "left by a save that was killed",
    "pull": "left by a pull that was interrupted",
    "temporary": "left by a program that was killed",
}


@dataclass(frozen=True)
class Removal:
    """One folder that may go, or what lies there in a folder's place."""

    folder: Path
    size: int
    """bytes; none for a link, whose target stays"""
    reason: str
    what: Literal["leftover", "checkpoint"]


@dataclass(frozen=True)
class Removed:
    """What came of a plan."""

    entries: int = 0
    size: int = 0
    """bytes that are free now"""
    told: tuple[str, ...] = ()
    """further messages, such as where the files that a link named still lie"""
    problems: tuple[str, ...] = ()
    """one line for each entry that is still there, with its remedy"""


@dataclass(frozen=True)
class RemovalPlan:
    """Everything that may go, and what stays although it was asked about."""

    removals: list[Removal]
    kept: list[tuple[Path, str]]

    @property
    def digest(self) -> str:
        """Eight digits that name this plan."""
        content = json.dumps([[str(each.folder), each.size, each.reason] for each in self.removals])
        return hashlib.sha256(content.encode()).hexdigest()[:8]


def plan_removal(catalogue: Catalogue, runs: Path, names: Sequence[str], rules: RetentionRules | None) -> RemovalPlan:
    """Goes through these runs. Without rules only leftovers and damaged folders are listed."""
    removals: list[Removal] = []
    kept: list[tuple[Path, str]] = []
    for name in names:
        run = RunFolder(runs / name)
        for shelf in (run.checkpoints, run.exports, run.elsewhere):
            try:
                removals += _leftovers(shelf)
            except (Refused, OSError) as error:
                kept.append((shelf, str(error)))
        if rules is not None:
            try:
                _go_through(catalogue, run, rules, removals, kept)
            except (TrainyardError, OSError) as error:  # what people said of it, or of its copies, cannot be read
                kept.append((run.path, str(error)))
    return RemovalPlan(removals, kept)


def carry_out(plan: RemovalPlan) -> Removed:
    """Removes what a plan lists; one that is gone by now is passed over, and one that cannot go holds up no other."""
    entries, size = 0, 0
    told: list[str] = []
    problems: list[str] = []
    for each in plan.removals:
        if not lexists(each.folder):
            continue
        try:
            if each.what == "checkpoint":
                keep_manifest(each.folder)
            told += filter(None, [delete_folder(each.folder)])
        except (TrainyardError, OSError) as error:
            problems.append(f"{printable(each.folder)} could not be removed: {error}")
        else:
            entries, size = entries + 1, size + each.size
    return Removed(entries, size, tuple(told), tuple(problems))


def reasons_of_run(run: RunFolder, rules: RetentionRules) -> dict[Path, str]:
    """By folder, why a run's checkpoints stay here although copies lie elsewhere.

    The rules hold among the valid ones, to which a run may have to go back, and among all: with `data.allow_invalid` it
    goes on from those that have their data's mark.

    Raises:
        Damaged: what people said about the run is.
    """
    reasons: dict[Path, str] = {}
    for inherited in (True, False):
        known = known_checkpoints(run, allow_inherited_fault=inherited)
        known += known_checkpoints(run, "weights", allow_inherited_fault=inherited)
        reasons |= reasons_to_stay(known, rules)
    return reasons


def why_it_stays(
    checkpoint: Artefact, reasons: Mapping[Path, str], gold: Collection[str], copies: Collection[str]
) -> str:
    """Why a checkpoint may not be removed here; empty where it may.

    Args:
        reasons: those of its run.
        gold: ids that were promoted.
        copies: ids of which a whole copy was verified at a location.
    """
    if is_pinned(checkpoint.folder):
        return "pinned"
    if checkpoint.id in gold:
        return "gold"
    if reason := reasons.get(checkpoint.folder):
        return reason
    return "" if checkpoint.id in copies else "no verified whole copy at any location; `tools/sync-to-hub` makes one"


def keep_manifest(folder: Path) -> None:
    """Puts a checkpoint's manifest under `elsewhere/` before its files go: lineage and copies hang on it.

    Raises:
        Missing: there is no manifest.
        Damaged: it is not as it was written.
        Refused: `elsewhere/` is a link, or no folder.
    """
    manifest = read_manifest(folder / MANIFEST)
    run = RunFolder(folder.parents[1])
    refuse_link(run.elsewhere)
    shelve(run.elsewhere / shelved_name(name_before(folder.name), manifest.id), manifest, None)


def _leftovers(shelf: Path) -> list[Removal]:
    """Raises Refused where the shelf is a link or no folder, OSError where it cannot be read."""
    refuse_link(shelf)
    found = []
    for folder in sorted(shelf.iterdir()) if shelf.exists() else []:
        kind = unfinished_kind(folder.name)
        if kind == "deletion":
            found.append(Removal(folder, folder_size(folder), "its removal was interrupted", "leftover"))
        elif kind is not None and _is_old(folder):
            found.append(Removal(folder, folder_size(folder), _LEFT_BY[kind], "leftover"))
        elif is_replaced(folder.name) and _is_old(folder):
            found.append(_replaced(folder))
    return found


def _replaced(folder: Path) -> Removal:
    if is_spoilt(folder):
        return Removal(folder, folder_size(folder), "damaged; a later save replaced it", "leftover")
    return Removal(folder, folder_size(folder), "left behind; a later save replaced it", "checkpoint")


def _go_through(
    catalogue: Catalogue,
    run: RunFolder,
    rules: RetentionRules,
    removals: list[Removal],
    kept: list[tuple[Path, str]],
) -> None:
    checkpoints = catalogue.artefacts(
        "run = ? AND kind = 'checkpoint' AND whereabouts = 'here'", [run.name], "ORDER BY step DESC"
    )
    gold = read_standing(run.path).gold
    copies = {copy.id for copy in read_copies(run.path) if copy.whole and copy.verified and not copy.problem}
    reasons = reasons_of_run(run, rules)
    left = abandoned(run, stated_facts(each.folder for each in checkpoints))
    for each in checkpoints:
        if each.folder.parent != run.checkpoints or is_replaced(each.folder.name):
            continue
        why = "a verified copy lies at a location"
        if each.folder in left:
            why = f"{why_left(left[each.folder])}; {why}"
        if reason := why_it_stays(each, reasons, gold, copies) or through_link(run.checkpoints):
            kept.append((each.folder, reason))
        elif each.folder.is_symlink():
            why = f"{why}; the link goes, its target {link_target(each.folder)} stays"
            removals.append(Removal(each.folder, 0, why, "checkpoint"))
        else:
            removals.append(Removal(each.folder, each.size - _linked_size(each.folder), why, "checkpoint"))


def through_link(shelf: Path) -> str:
    """Why nothing is removed in a run's folder of artefacts that is a link; empty for a folder."""
    try:
        refuse_link(shelf)
    except Refused as error:
        return str(error)
    return ""


def folder_size(folder: Path) -> int:
    """Bytes that go with a folder, or with the file in its place; links, what vanishes, and files that have another
    name elsewhere, as those of a tokenizer, count nothing.
    """
    return sum(status.st_size for status in _statuses(folder) if status.st_nlink == 1 and stat.S_ISREG(status.st_mode))


def _linked_size(folder: Path) -> int:
    """Bytes of a checkpoint's folder that stay when it goes: its tokenizer's files have names in other folders too."""
    linked = [each for each in _statuses(folder / TOKENIZER) if each.st_nlink > 1 and stat.S_ISREG(each.st_mode)]
    return sum(status.st_size for status in linked)


def _is_old(folder: Path) -> bool:
    times = [status.st_mtime for status in _statuses(folder)]
    return bool(times) and abs(time.time() - max(times)) > _OLD_SECONDS


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    """The status of an entry and of everything in it; no link is followed."""
    for path in [folder] if folder.is_symlink() else [folder, *everything_beneath(folder)]:
        with suppress(FileNotFoundError):
            yield path.lstat()
