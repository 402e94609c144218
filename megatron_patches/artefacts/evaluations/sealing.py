"""The manifest of a step's evaluation, drawn from the results that are there.

It is made of the files that are there, and made again until no file has changed meanwhile. So whoever writes last names
what the others wrote, and a result that was left without a manifest is named by the next one. The same holds for a mark
(last_word.py), and for one of the checkpoint, which an evaluation shares that comes after it.
"""

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from megatron_patches.artefacts.descent import ORIGIN, origin_of
from megatron_patches.artefacts.evaluations.last_word import last_word, say
from megatron_patches.artefacts.evaluations.result import (
    ITEMS_ENDING,
    RESULT_ENDING,
    TaskResult,
    is_label,
    read_result,
)
from megatron_patches.artefacts.folders import checkpoint_name, name_before, shelved_name, step_of
from megatron_patches.artefacts.manifest import (
    MANIFEST,
    Manifest,
    Status,
    announce_change,
    build_manifest,
    read_manifest,
    record_file,
    write_manifest,
)
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import fsync_folder, hash_file
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.files import is_file, names_in
from megatron_patches.foreign.printable import printable

RESULTS = "results"
"""fact of an evaluation's manifest: its metrics, by label (or label.part) and name"""
TASKS = "tasks"
"""the same: what is to be known of each label's result beside its metrics"""
_ATTEMPTS = 1000
_Found = dict[str, tuple[int, int, int]]
"""files by name, each with what tells it from one that is written in its place"""


def step_in(folder: Path) -> int:
    """The step in the name of an evaluation's folder, or of one that was moved aside."""
    return step_of(folder.with_name(name_before(folder.name)))


def labels_in(folder: Path) -> list[str]:
    """Of the results that are there, sorted.

    Raises:
        Refused: it is no folder, or may not be read.
    """
    names = [name for name in names_in(folder) if name.endswith(RESULT_ENDING)]
    labels = [name.removesuffix(RESULT_ENDING) for name in names]
    return sorted(label for label in labels if is_label(label) and is_file(folder / f"{label}{RESULT_ENDING}"))


def seal(folder: Path) -> Manifest:
    """Writes the manifest of what a folder holds. A mark of the former one stays, and one of the checkpoint counts.

    Raises:
        Missing: it holds no result.
        Damaged: a result, the former manifest, or what was said last of it cannot be read.
        TrainyardError: its files change without an end.
    """
    inherited: Status | None = None
    for _ in range(_ATTEMPTS):
        found = _files(folder)
        try:
            manifest = _manifest_of(folder, list(found))
        except FileNotFoundError:
            continue  # another job replaces a result just now
        former, word = _former(folder), last_word(folder, manifest.parents)
        own = _own_status(former, word, inherited)
        inherited = _inherited(folder, manifest.parents)
        manifest = manifest.model_copy(update={"status": own if own.state == "invalid" else inherited or own})
        if former is None or (former.id, former.status) != (manifest.id, manifest.status):
            write_manifest(folder / MANIFEST, manifest)
            fsync_folder(folder)
            announce_change(folder / MANIFEST)
        # else another job has added or replaced a result meanwhile, or somebody has marked it or its checkpoint
        said_since = last_word(folder, manifest.parents), _inherited(folder, manifest.parents)
        if _files(folder) == found and said_since == (word, inherited):
            return read_manifest(folder / MANIFEST)
    raise TrainyardError(f"{printable(folder)} changes all the time: find out what writes into it, then evaluate again")


def mark(folder: Path, status: Status) -> None:
    """Gives a step's evaluation a status, which no result that comes meanwhile takes away.

    Args:
        status: its cause is None where the fault is the evaluation's own.

    Raises:
        Missing, Damaged, Refused: its manifest cannot be read.
        OSError: as writing does.
    """
    say(folder, read_manifest(folder / MANIFEST).parents, status)
    try:
        seal(folder)
    except TrainyardError:  # without a result, or with one that cannot be read, the manifest stays as it is
        manifest = read_manifest(folder / MANIFEST)
        write_manifest(folder / MANIFEST, manifest.model_copy(update={"status": status}))
        announce_change(folder / MANIFEST)


def share_mark(folder: Path) -> None:
    """Gives an evaluation that came from elsewhere the mark that its checkpoint has here.

    Raises:
        Missing, Damaged, Refused: its manifest cannot be read.
        OSError: as writing does.
    """
    manifest = read_manifest(folder / MANIFEST)
    inherited = _inherited(folder, manifest.parents)
    if inherited is not None and manifest.status.state == "valid":
        write_manifest(folder / MANIFEST, manifest.model_copy(update={"status": inherited}))
        announce_change(folder / MANIFEST)


def _own_status(former: Manifest | None, word: Status | None, inherited: Status | None) -> Status:
    """What was said of the evaluation itself. A fault of its own has no cause, whose id would not be its id for long.

    Args:
        inherited: what this process gave it because of its checkpoint, which may have changed since.
    """
    status = former.status if former and former.status != inherited else Status()
    if former and status.cause == former.id:
        status = status.model_copy(update={"cause": None})
    return status if word is None or word.is_older_than(status) else word


def _inherited(folder: Path, checkpoints: Sequence[str]) -> Status | None:
    """The mark of a checkpoint that was evaluated, as what came from it has it; None where none is marked."""
    for checkpoint in _checkpoints_here(folder, checkpoints):
        status = checkpoint.status
        if status.state == "invalid" and status.cause in (None, checkpoint.id):
            name = f"{checkpoint.facts.get('run')}@{step_in(folder)}"
            reason = f"came from {name} ({checkpoint.id[:12]}): {status.reason}"
            return status.model_copy(update={"reason": reason, "cause": checkpoint.id})
        if status.state == "invalid":
            return status
    return None


def names_what_is_there(manifest: Manifest, folder: Path) -> bool:
    """Whether a manifest names the results of a folder as they are, and no others."""
    try:
        found = {name: size for name, (_, _, size) in _files(folder).items()}
        if {file.path: file.size for file in manifest.files} != found:
            return False
        results = [file for file in manifest.files if file.path.endswith(RESULT_ENDING)]
        return all(hash_file(folder / file.path)[0] == file.sha256 for file in results)
    except (TrainyardError, OSError):
        return False


def _files(folder: Path) -> _Found:
    """The results and their items, sorted by name."""
    found: _Found = {}
    for label in labels_in(folder):
        for name in (label + ITEMS_ENDING, label + RESULT_ENDING):
            try:
                status = (folder / name).stat()
            except (OSError, ValueError):  # another job has just removed it, or it is what no file is
                continue
            if stat.S_ISREG(status.st_mode):
                found[name] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return dict(sorted(found.items()))


def _former(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder / MANIFEST)
    except Missing:
        return None


def _manifest_of(folder: Path, files: Sequence[str]) -> Manifest:
    """The manifest that these files make.

    Raises:
        FileNotFoundError: one is gone meanwhile.
    """
    labels = [name.removesuffix(RESULT_ENDING) for name in files if name.endswith(RESULT_ENDING)]
    if not labels:
        raise Missing(f"{printable(folder)} holds no result of an evaluation: evaluate the step, or remove the folder")
    try:
        results = [read_result(folder / f"{label}{RESULT_ENDING}", step_in(folder)) for label in labels]
    except Missing:
        raise FileNotFoundError(folder) from None
    checkpoints = list(dict.fromkeys(result.checkpoint for result in results))
    records = [record_file(folder / name, folder) for name in files]
    origin = _origin(folder, checkpoints)
    facts = facts_of(results) | ({ORIGIN: origin} if origin is not None else {})
    return build_manifest("evaluation", records, facts, checkpoints)


def _origin(folder: Path, checkpoints: Sequence[str]) -> JsonValue:
    """By what the evaluation's descent is known when its checkpoint is gone; as the former manifest states it where
    that is so already.
    """
    for manifest in _checkpoints_here(folder, checkpoints):
        if manifest.id in checkpoints:
            return origin_of(manifest)
    former = _former(folder)
    stated = former.facts.get(ORIGIN) if former else None
    return stated if isinstance(stated, dict) and stated.get("id") in checkpoints else None


def _checkpoints_here(folder: Path, checkpoints: Sequence[str]) -> Iterator[Manifest]:
    """The manifests of what was evaluated, and of its weights alone, where they are here and can be read."""
    run, step = RunFolder(folder.parents[1]), step_in(folder)
    full, weights = checkpoint_name(step), checkpoint_name(step, "weights")
    shelved = [run.elsewhere / shelved_name(name, each) for each in checkpoints for name in (full, weights)]
    known: set[str] = set()
    for place in (run.checkpoints / full, run.checkpoints / weights, *shelved):
        try:
            manifest = read_manifest(place / MANIFEST)
        except TrainyardError:  # it is not here, or not to be read: the evaluation is told all the same
            continue
        above = set(checkpoints) & set(manifest.parents) if manifest.facts.get("content") == "weights" else set()
        if manifest.id in checkpoints or (above and not above & known):
            known.add(manifest.id)
            yield manifest


def facts_of(results: Sequence[TaskResult]) -> dict[str, JsonValue]:
    """What a manifest states of results of one step: so that they are found without reading them."""
    first = results[0]
    labels = {result.label for result in results}
    metrics: dict[str, JsonValue] = {}
    for result in results:
        metrics[result.label] = _values(result.metrics)
        for part, found in result.parts.items():
            if f"{result.label}.{part}" not in labels:
                metrics[f"{result.label}.{part}"] = _values(found.metrics)
    known: dict[str, JsonValue] = {} if first.tokens is None else {"tokens": first.tokens}
    tasks: dict[str, JsonValue] = {result.label: _about(result) for result in results}
    return {"run": first.run, "step": first.step, **known, RESULTS: metrics, TASKS: tasks}


def _values(metrics: Mapping[str, Any]) -> JsonValue:
    return {name: metric.value for name, metric in metrics.items()}


def _about(result: TaskResult) -> JsonValue:
    errors: JsonValue = {
        name: metric.standard_error for name, metric in result.metrics.items() if metric.standard_error is not None
    }
    about: dict[str, JsonValue] = {
        "task": result.task,
        "version": result.version,
        "definition": result.definition,
        "shots": result.shots,
        "examples": result.examples,
        "standard_errors": errors,
        "through": result.through,
        "date": result.date,
    }
    stated = {"limit": result.limit, "length": result.length}
    return about | {name: value for name, value in stated.items() if value is not None}
