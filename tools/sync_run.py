"""One run to one location: every chosen artefact and folder, with a line for each in the summary."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_tools.errors import TrainyardError
from data_tools.inventory.annotations import FOLDER as ANNOTATIONS
from data_tools.inventory.annotations import read_annotations, what_counts
from data_tools.inventory.artefact import read_artefact
from data_tools.inventory.copies import Copy, CopyRecorder, now, read_copies
from data_tools.inventory.removal import Retention, leave_manifest, remove_folder, why_it_stays
from data_tools.storage.location import Location
from data_tools.storage.loose import send_loose
from data_tools.storage.store import Store, VanishedSource, open_store
from data_tools.storage.transfer import Options, Outcome, check_artefact, send_artefact
from tools.sync_items import Choice, Item, items_of, loose_files


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

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return {key: value for key, value in vars(self).items() if value != ""}


@dataclass
class Task:
    """A run, a location, and what of the one is to be at the other."""

    run_folder: Path
    location: Location
    choice: Choice
    options: Options = field(default_factory=Options)
    dry_run: bool = False
    delete_local: bool = False
    """remove a checkpoint here once its copy was read whole and found right"""


def push(task: Task) -> Iterator[Line]:
    """Copies everything that is chosen; one artefact that fails does not hold up the others."""
    with _ready(task) as store:
        recorder = CopyRecorder(task.run_folder)
        known = {(copy.location, copy.name): copy for copy in read_copies(task.run_folder)}
        for item in items_of(task.run_folder, task.choice):
            try:
                outcome = _push_item(store, task, item)
                if not task.dry_run:
                    before = known.get((str(task.location), item.name))
                    if outcome.word == "sent" or before is None or before.id != item.manifest.id or before.problem:
                        recorder.record(_copy(task, item, "as sent", now() if outcome.word == "sent" else None))
                yield _line(task, item.name, outcome.word, outcome)
                if task.delete_local and not task.dry_run and item.whole:
                    yield _line(task, item.name, _delete_here(store, task, item, recorder))
            except VanishedSource:
                yield _line(task, item.name, "removed here meanwhile")
            except (TrainyardError, OSError) as error:
                yield _line(task, item.name, "failed", problem=str(error))
        for problem in task.choice.passed_over:
            yield _line(task, "", "passed over", problem=problem)
        for name, files in loose_files(task.run_folder, task.choice).items():
            yield _push_loose(store, task, name, files)


def _push_item(store: Store, task: Task, item: Item) -> Outcome:
    if not task.dry_run:
        return send_artefact(store, item.name, item.manifest, item.folder, task.options)
    entries = store.entries(item.name)
    missing = [file for file in item.manifest.files if file.path not in entries or entries[file.path].size != file.size]
    return Outcome("sent" if missing else "present", len(missing), sum(file.size for file in missing))


def _push_loose(store: Store, task: Task, name: str, files: list[Path]) -> Line:
    if task.dry_run:
        return _line(task, name, "would be compared", Outcome("sent", len(files), 0))
    try:
        outcome = send_loose(store, name, task.run_folder / name, files, task.options)
    except (TrainyardError, OSError) as error:
        return _line(task, name, "failed", problem=str(error))
    return _line(task, name, outcome.word, outcome)


def _delete_here(store: Store, task: Task, item: Item, recorder: CopyRecorder) -> str:
    """Reads the copy whole; only what is right there and may go goes."""
    run = task.run_folder
    artefact = read_artefact(item.shelf_folder / "manifest.json", run.name)
    if artefact.whereabouts != "here" or item.shelf_folder.parent != run / "checkpoints":
        return "stays: its files are not the run's own"
    said = what_counts(read_annotations(run / ANNOTATIONS))
    newer = _full_steps_after(run, artefact.step or 0)
    if reason := why_it_stays(artefact, newer, set(said.gold), {artefact.id}, Retention()):
        return f"stays here: {reason}"
    if problems := check_artefact(store, item.name, item.manifest.id, task.options):
        recorder.record(replace(_copy(task, item, "read whole", None), problem=problems[0]))
        raise TrainyardError(f"its copy is damaged, and it stays here: {'; '.join(problems)}; sync with --replace")
    recorder.record(_copy(task, item, "read whole", now()))
    leave_manifest(item.shelf_folder)
    remove_folder(item.shelf_folder)
    return "removed here"


def _full_steps_after(run: Path, step: int) -> int:
    items = items_of(run, Choice(what=("checkpoints",)))
    mine = [item for item in items if item.shelf_folder.parent == run / "checkpoints"]
    steps = [item.manifest.facts.get("step") for item in mine if item.manifest.facts.get("content") != "weights"]
    return sum(isinstance(each, int) and each > step for each in steps)


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


def _line(task: Task, name: str, word: str, outcome: Outcome | None = None, problem: str = "") -> Line:
    if task.dry_run and word == "sent":
        word = "would be sent"
    files, size = (outcome.files, outcome.size) if outcome else (0, 0)
    return Line(task.run_folder.name, name, str(task.location), word, files, size, problem)


@contextmanager
def _ready(task: Task) -> Iterator[Store]:
    """The location's store.

    Raises:
        TrainyardError: the run was never made, or the location cannot be reached.
    """
    if not task.run_folder.is_dir():
        raise TrainyardError(f"{task.run_folder} does not exist: the run was never launched here")
    yield open_store(task.location)
