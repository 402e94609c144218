"""One run to one location: every chosen artefact and folder, with a line for each in the summary."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.annotations import read_standing
from megatron_patches.artefacts.inventory.artefact import read_artefact
from megatron_patches.artefacts.inventory.copies import Copy, CopyRecorder, now, read_copies
from megatron_patches.artefacts.inventory.removal import keep_manifest, reasons_of_run, through_link, why_it_stays
from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.manifest import MANIFEST
from megatron_patches.artefacts.retention import CopiedRetention
from megatron_patches.artefacts.run_folder import EVALS, RunFolder
from megatron_patches.artefacts.storage.loose import send_loose
from megatron_patches.artefacts.storage.open import open_store
from megatron_patches.artefacts.storage.retrying import Retries
from megatron_patches.artefacts.storage.store import AccessRefused, DamagedCopy, NotThere, Store, VanishedSource, joined
from megatron_patches.artefacts.storage.transfer import (
    Options,
    TransferOutcome,
    as_bytes,
    check_artefact,
    remote_manifest,
    send_artefact,
)
from megatron_patches.artefacts.unfinished import delete_folder
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.credentials import without_credentials
from megatron_patches.foreign.printable import printable
from tools.commands.sync_to_hub.evaluations import is_of_a_step, seal_all, send_evaluation
from tools.commands.sync_to_hub.items import Choice, Item, items_of, loose_files, unsent_manifests


@dataclass(frozen=True)
class Line:
    """What became of one artefact or folder."""

    run: str
    name: str
    location: str
    word: str
    """sent, present, would be sent, removed here, failed ..."""
    files: int = 0
    size: int = 0
    """bytes that moved"""
    problem: str = ""
    lasting: bool = False
    """whether the problem is the same at the next try, until somebody does something about it"""

    def __post_init__(self) -> None:
        """Names and problems may be a location's own text, and go to a terminal."""
        for key in ("run", "name", "location", "problem"):
            object.__setattr__(self, key, printable(without_credentials(getattr(self, key)), layout=key == "problem"))

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return {key: value for key, value in vars(self).items() if value != "" and key != "lasting"}


@dataclass
class Task:
    """A run, a location, and what of the one is to be at the other."""

    run_folder: Path
    location: Location
    choice: Choice
    options: Options = field(default_factory=Options)
    retries: Retries = field(default_factory=Retries)
    dry_run: bool = False
    copied: list[Item] = field(default_factory=list)
    """filled with the whole artefacts that lie at the location now"""
    failed: set[str] = field(default_factory=set)
    """filled with the ids here of those that could not be brought there, or are damaged there"""
    right: list[Item] = field(default_factory=list)
    """filled with those of `copied` that were read there whole and may go here"""


def push(task: Task) -> Iterator[Line]:
    """Copies everything that is chosen; one artefact that fails does not hold up the others."""
    with _ready(task) as store:
        recorder = CopyRecorder(task.run_folder)
        known = {copy.name: copy for copy in read_copies(task.run_folder) if copy.location == str(task.location)}
        looked_at = set()
        if "evals" in task.choice.what and not task.dry_run:
            task.choice.passed_over.extend(seal_all(task.run_folder / EVALS))
        for item in items_of(task.run_folder, task.choice):
            looked_at.add(item.name)
            before = known.get(item.name)
            doubted = before is not None and before.problem is not None
            try:
                outcome = _push_item(store, task, item, doubted, before.id if before else None)
                if not task.dry_run:
                    compared = outcome.result == "sent" or doubted
                    if compared or before is None or before.id != item.manifest.id:
                        recorder.record(_copy(task, item, "as sent", now() if compared else None))
                    task.copied += [item] if item.whole else []
                yield _line(task, item.name, outcome.result, outcome)
            except VanishedSource:
                yield _line(task, item.name, "removed here meanwhile")
            except (TrainyardError, OSError) as error:
                task.failed.add(item.of)
                yield failure(task, item.name, error)
        yield from _renew_statuses(store, task, [copy for name, copy in known.items() if name not in looked_at])
        loose = loose_files(task.run_folder, task.choice)
        for problem in task.choice.passed_over:
            yield _line(task, "", "passed over", problem=problem)
        for name, files in loose.items():
            yield _push_loose(store, task, name, files)


def read_back(task: Task) -> Iterator[Line]:
    """Reads whole, at the location, what a task that was carried out copied and what may go here."""
    store, recorder = open_store(task.location, task.retries), CopyRecorder(task.run_folder)
    for item in task.copied:
        try:
            if reason := _why_it_stays(task, item):
                yield _line(task, item.name, reason)
                continue
            if problems := check_artefact(store, item.name, item.manifest.id):
                recorder.record(replace(_copy(task, item, "read whole", None), problem=problems[0]))
                raise DamagedCopy(
                    f"its copy is damaged, and it stays here: {'; '.join(problems)}. Sync again: what is damaged is "
                    "sent anew"
                )
            recorder.record(_copy(task, item, "read whole", now()))
            task.right.append(item)
        except (TrainyardError, OSError) as error:
            task.failed.add(item.of)
            yield _line(task, item.name, "failed", problem=str(error))


def remove_copied(task: Task, wanted_elsewhere: set[str]) -> Iterator[Line]:
    """Removes here what was read back and found right.

    Args:
        wanted_elsewhere: ids of what another location lacks, or holds damaged.
    """
    for item in task.right:
        try:
            if item.of in wanted_elsewhere:
                yield _line(task, item.name, "stays here: another location lacks it, or holds it damaged")
            elif reason := _why_it_stays(task, item):
                yield _line(task, item.name, reason)
            else:
                keep_manifest(item.shelf_folder)
                told = delete_folder(item.shelf_folder)
                yield _line(task, item.name, f"removed here; {told}" if told else "removed here")
        except (TrainyardError, OSError) as error:
            yield _line(task, item.name, "failed", problem=str(error))


def _push_item(store: Store, task: Task, item: Item, doubted: bool, sent: str | None) -> TransferOutcome:
    if not task.dry_run and is_of_a_step(item.manifest, item.folder.name):
        return send_evaluation(store, item.name, item.manifest, item.folder, task.options, doubted, sent)
    if not task.dry_run:
        return send_artefact(store, item.name, item.manifest, item.folder, task.options, doubted)
    entries = store.entries(item.name)
    missing = [file for file in item.manifest.files if file.path not in entries or entries[file.path].size != file.size]
    return TransferOutcome("sent" if missing else "present", len(missing), sum(file.size for file in missing))


def _renew_statuses(store: Store, task: Task, copies: list[Copy]) -> Iterator[Line]:
    """What is invalid is not sent, but its copies must say so too, and so must those of what was removed here."""
    unsent = unsent_manifests(task.run_folder) if copies else {}
    for copy in copies:
        manifest = unsent.get(copy.of) or unsent.get(copy.name)
        if manifest is None:
            continue
        try:
            remote = remote_manifest(store, copy.name)
            if remote is None or remote.id != copy.id or remote.status == manifest.status:
                continue
            if manifest.status.is_older_than(remote.status):
                continue
            if not task.dry_run:
                marked = as_bytes(remote.model_copy(update={"status": manifest.status}))
                store.write(joined(copy.name, MANIFEST), marked)
            yield _line(task, copy.name, "status would be renewed" if task.dry_run else "status renewed")
        except (TrainyardError, OSError) as error:
            yield _line(task, copy.name, "failed", problem=str(error))


def _push_loose(store: Store, task: Task, name: str, files: list[Path]) -> Line:
    if task.dry_run:
        return _line(task, name, "would be compared", TransferOutcome("sent", len(files), 0))
    try:
        outcome = send_loose(store, name, task.run_folder / name, files, task.options)
    except (TrainyardError, OSError) as error:
        return failure(task, name, error)
    return _line(task, name, outcome.result, outcome)


def _why_it_stays(task: Task, item: Item) -> str | None:
    """Why a checkpoint is not removed here; None where its copy is all that is asked for."""
    run = task.run_folder
    if not (item.shelf_folder / MANIFEST).exists():
        return "removed here meanwhile"
    artefact = read_artefact(item.shelf_folder / MANIFEST, run.name)
    if artefact.whereabouts != "here" or item.shelf_folder.parent != RunFolder(run).checkpoints:
        return "stays: its files are not the run's own"
    gold = read_standing(run).gold
    reasons = reasons_of_run(RunFolder(run), CopiedRetention())
    reason = why_it_stays(artefact, reasons, gold, {artefact.id}) or through_link(RunFolder(run).checkpoints)
    return f"stays here: {reason}" if reason else None


def _copy(task: Task, item: Item, how: str, verified: str | None) -> Copy:
    return Copy(
        id=item.manifest.id,
        of=item.of,
        name=item.name,
        location=str(task.location),
        size=item.size,
        whole=item.whole,
        verified=verified,
        how=how,
    )


def _line(task: Task, name: str, word: str, outcome: TransferOutcome | None = None, problem: str = "") -> Line:
    if task.dry_run and word == "sent":
        word = "would be sent"
    files, size = (outcome.files, outcome.size) if outcome else (0, 0)
    return Line(task.run_folder.name, name, str(task.location), word, files, size, problem)


def failure(task: Task, name: str, error: Exception) -> Line:
    """What could not be done. What a location refuses, or does not have, it refuses again."""
    lasting = isinstance(error, (AccessRefused, NotThere))
    return replace(_line(task, name, "failed", problem=str(error)), lasting=lasting)


@contextmanager
def _ready(task: Task) -> Iterator[Store]:
    """The location's store.

    Raises:
        TrainyardError: the run was never made, or the location cannot be reached.
    """
    if not task.run_folder.is_dir():
        raise TrainyardError(f"{task.run_folder} does not exist: the run was never launched here")
    yield open_store(task.location, task.retries)
