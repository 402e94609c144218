"""Manifests for checkpoints that something else wrote. The foreign folder is read and left as it is: the manifest lies
in the run's directory, under `elsewhere/`, with a `place.json` that names the folder.
"""

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from megatron_patches.artefacts.folders import checkpoint_name, shelved_name
from megatron_patches.artefacts.foreign_formats.formats import ForeignCheckpoint, PassedOver, find_checkpoints
from megatron_patches.artefacts.inventory.artefact import FILES_FOLDER
from megatron_patches.artefacts.manifest import (
    MANIFEST,
    FileRecord,
    Manifest,
    build_manifest,
    record_file,
    write_manifest,
)
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import fsync_folder, temporary_path, write_atomically
from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.foreign.names import check_name
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted


@dataclass(frozen=True)
class Adopted:
    """One foreign checkpoint with its manifest."""

    checkpoint: ForeignCheckpoint
    manifest: Manifest
    folder: Path
    """of the manifest"""
    is_new: bool


@dataclass(frozen=True)
class Adoption:
    """What became of a foreign folder."""

    adopted: list[Adopted]
    passed_over: list[PassedOver]


def adopt(
    folder: Path,
    run_folder: Path,
    parents: tuple[str, ...] = (),
    step: int | None = None,
    report: Callable[[str], None] = lambda _: None,
    misfit: Callable[[ForeignCheckpoint], str] = lambda _: "",
) -> Adoption:
    """Reads every checkpoint in a foreign folder that is understood and writes a manifest for each. One that was
    adopted before is left as it is, so an adoption that was interrupted goes on.

    Args:
        run_folder: directory of the run that they are to belong to.
        parents: ids of what they came from.
        step: of the one checkpoint there, where it does not say it itself.
        report: is told each checkpoint's name before its files are read.
        misfit: why a checkpoint cannot be one of the run; empty where it can.

    Raises:
        TrainyardError: nothing can be adopted; the reasons are told.
    """
    check_name(run_folder.name, "a run (--run)")
    found, passed_over = find_checkpoints(folder)
    if step is not None:
        found = [_at_step(found, step)]
    chosen, others = _one_for_each_step(found)
    passed_over += others
    adopted = []
    for checkpoint in chosen:
        if reason := misfit(checkpoint):
            passed_over.append(PassedOver(checkpoint.path, reason))
            continue
        report(checkpoint.name)
        try:
            adopted.append(_adopt_one(checkpoint, run_folder, parents))
        except Damaged as error:
            passed_over.append(PassedOver(checkpoint.path, str(error)))
    if not adopted:
        raise TrainyardError("\n".join(["nothing is adopted", *(str(each) for each in passed_over)]))
    return Adoption(adopted, passed_over)


def _at_step(found: list[ForeignCheckpoint], step: int) -> ForeignCheckpoint:
    if len(found) > 1:
        raise TrainyardError(
            f"--step {step}: there are {counted(len(found), 'checkpoint')}; name the folder or file that is meant"
        )
    if found[0].step not in (None, step):
        raise TrainyardError(f"--step {step}: {printable(found[0].path)} says that it is of step {found[0].step}")
    if step >= 10**10:
        raise TrainyardError(f"--step {step}: a step has at most ten digits")
    return replace(found[0], step=step)


def _one_for_each_step(found: list[ForeignCheckpoint]) -> tuple[list[ForeignCheckpoint], list[PassedOver]]:
    """Those whose names say the step; of others, such as `last.ckpt`, those of a step that is not there yet."""
    chosen: dict[int, ForeignCheckpoint] = {}
    every, others = [], []
    for each in sorted(found, key=lambda each: not each.named):
        if each.step is None:
            remedy = "adopt it by itself with --step N (0 for a model that was not trained further)"
            others.append(PassedOver(each.path, f"{each.why_unknown}; {remedy}"))
        elif not each.named and each.step in chosen:
            first = printable(chosen[each.step].path)
            others.append(PassedOver(each.path, f"is of step {each.step}, of which {first} is adopted", False))
        else:
            chosen.setdefault(each.step, each)
            every.append(each)
    return sorted(every, key=lambda each: (each.step or 0, each.name)), others


def _adopt_one(checkpoint: ForeignCheckpoint, run_folder: Path, parents: tuple[str, ...]) -> Adopted:
    files = [_record(path, checkpoint.root) for path in checkpoint.files]
    facts: dict[str, JsonValue] = {
        "run": run_folder.name,
        "step": checkpoint.step,
        "format": checkpoint.format,
        "content": checkpoint.content,
        "metrics": dict(checkpoint.metrics),
    }
    if checkpoint.layout:
        facts["layout"] = dict(checkpoint.layout)
    command = shlex.join(["tools/inventory", "adopt", checkpoint.name, "--run", run_folder.name])
    manifest = build_manifest("checkpoint", files, facts, parents, command)
    assert checkpoint.step is not None
    final = RunFolder(run_folder).elsewhere / shelved_name(checkpoint_name(checkpoint.step), manifest.id)
    if (final / MANIFEST).is_file():
        return Adopted(checkpoint, manifest, final, False)
    shelve(final, manifest, checkpoint.root)
    return Adopted(checkpoint, manifest, final, True)


def shelve(final: Path, manifest: Manifest, files: Path | None) -> None:
    """Puts a manifest whose files lie elsewhere under a run, whole or not at all.

    Args:
        final: folder to be, under the run's `elsewhere/`; it may exist already, put there by another process.
        files: their folder; None where only copies at locations are left.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(final)
    temporary.mkdir()
    try:
        content = {"folder": str(files.absolute()) if files else None}
        write_atomically(temporary / FILES_FOLDER, (json.dumps(content) + "\n").encode())
        write_manifest(temporary / MANIFEST, manifest)
        try:
            temporary.rename(final)
        except OSError:
            if not (final / MANIFEST).is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fsync_folder(final.parent)


def _record(path: Path, root: Path) -> FileRecord:
    try:
        return record_file(path, root)
    except OSError as error:
        raise Damaged(f"{printable(path)} cannot be read ({error.strerror}); nothing was written for it") from error
