"""Manifests for checkpoints that something else wrote. The foreign folder is read and left as it is: the manifest lies
in the run's directory, under `elsewhere/`, with a `place.json` that names the folder.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from megatron_patches.artefacts.folders import checkpoint_name, shelved_name
from megatron_patches.artefacts.inventory.adoption_formats import ForeignCheckpoint, find_checkpoints
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
from megatron_patches.errors import TrainyardError


@dataclass(frozen=True)
class Adopted:
    """One foreign checkpoint with its manifest."""

    checkpoint: ForeignCheckpoint
    manifest: Manifest
    folder: Path
    """of the manifest"""
    is_new: bool


def adopt(
    folder: Path,
    run_folder: Path,
    parents: tuple[str, ...] = (),
    step: int | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> list[Adopted]:
    """Reads every checkpoint in a foreign folder and writes a manifest for each. One that was adopted before is left
    as it is, so an adoption that was interrupted goes on.

    Args:
        run_folder: directory of the run that they are to belong to.
        parents: ids of what they came from.
        step: of a checkpoint whose folder does not say it.
        report: is told each checkpoint's name before its files are read.

    Raises:
        TrainyardError: there is no checkpoint of a known format, or one whose step is unknown.
    """
    found = find_checkpoints(folder)
    if step is not None and len(found) == 1 and found[0].step is None:
        found = [replace(found[0], step=step)]
    if unknown := [each for each in found if each.step is None]:
        raise TrainyardError(
            f"{unknown[0].path} does not say of which step it is; adopt it by itself with --step N (0 for a model that "
            "was not trained further)"
        )
    adopted = []
    for checkpoint in found:
        report(checkpoint.name)
        adopted.append(_adopt_one(checkpoint, run_folder, parents))
    return adopted


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
    command = f"tools/inventory adopt {checkpoint.name} --run {run_folder.name}"
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
        raise TrainyardError(f"{path} cannot be read ({error.strerror}); nothing was written for it") from error
