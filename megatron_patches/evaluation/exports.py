"""Exports that evaluations are asked of: one of the run's own that is there, else one for the time it takes. Torch-free
but where one is made.

The latter lie in `exports/.evaluating/`, each with a file beside it that says whose it is: written before the export,
removed after it. So what a killed process left is known by its process, and the next evaluation removes it.
"""

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path

from megatron_patches.artefacts.evaluations.processes import JOB, here, is_over, jobs_in_queue
from megatron_patches.artefacts.inventory.weights import is_optimizer_file
from megatron_patches.artefacts.manifest import MANIFEST, read_manifest, verify_files
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.evaluation.selection import Candidate
from megatron_patches.foreign.files import is_folder, names_in, read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable
from megatron_patches.run.config import RunConfig

EVALUATING = ".evaluating"
"""folder of `exports/`"""
_OWNER = ".json"
_BYTES = 1 << 16
_LARGE = 10**9
"""parameters from which on a model is compared with its export block by block, in memory for one block"""


def own_place(run: RunFolder, candidate: Candidate) -> Path:
    """Where a run keeps the export of a checkpoint."""
    return run.exports / f"hf-step-{candidate.step:010d}"


def kept_export(run: RunFolder, candidate: Candidate) -> Path | None:
    """The run's own export of the checkpoint, every byte compared with its manifest; None where there is none.

    Raises:
        Refused: it is of another checkpoint or of other weights, or is marked invalid. Damaged: it is not whole.
    """
    folder = own_place(run, candidate)
    if not folder.exists() and not folder.is_symlink():
        return None
    try:
        manifest = read_manifest(folder / MANIFEST)
    except Missing:
        raise Damaged(f"{printable(folder)} has no {MANIFEST}: it is no whole export; move it away") from None
    facts = manifest.facts
    if manifest.status.state == "invalid":
        raise Refused(f"{printable(folder)} is marked invalid; move it away")
    if manifest.kind != "export" or facts.get("format") != "transformers" or facts.get("weights") != "stored":
        raise Refused(f"{printable(folder)} is no export of the stored weights for transformers; move it away")
    if not set(manifest.parents) & set(candidate.ids):
        raise Refused(f"{printable(folder)} was made of another checkpoint; move it away")
    if problems := verify_files(manifest, folder, hashes=True):
        raise Damaged(f"{problems[0]}; move the export away")
    return folder


@contextmanager
def export_of(
    run: RunFolder, candidate: Candidate, config: RunConfig, keep: bool, hear: Callable[[str], None]
) -> Iterator[Path]:
    """A whole and proved export of the checkpoint, which is removed at the end unless it was there, or is kept.

    Raises:
        TrainyardError: none can be made, or the checkpoint is damaged. OSError: as writing does.
    """
    try:
        if (there := kept_export(run, candidate)) is not None:
            yield there
            return
    except (Refused, Damaged) as error:
        if keep:
            raise
        hear(f"{error}; another export is made for this evaluation")
    read = [file for file in candidate.manifest.files if not is_optimizer_file(file.path)]
    if problems := verify_files(candidate.manifest.model_copy(update={"files": read}), candidate.folder, hashes=True):
        raise Damaged(f"{problems[0]}; restore the checkpoint from a copy")
    if keep:
        yield _made(run, candidate, config, own_place(run, candidate), hear)
        return
    shelf = run.exports / EVALUATING
    name = f"step-{candidate.step:010d}-{secrets.token_hex(8)}"
    shelf.mkdir(parents=True, exist_ok=True)
    write_atomically(shelf / f"{name}{_OWNER}", json.dumps(here()).encode())
    try:
        yield _made(run, candidate, config, shelf / name / f"hf-step-{candidate.step:010d}", hear)
    finally:
        _remove(shelf, name)


def _made(run: RunFolder, candidate: Candidate, config: RunConfig, target: Path, hear: Callable[[str], None]) -> Path:
    from megatron_patches.transformers_exchange.exporting import ExportRequest, export_transformers

    by_block = sum(prod(row.shape) for row in config.parameters) >= _LARGE
    command = f"tools/evals run {run.name}@{candidate.step}"
    hear("making an export")
    request = ExportRequest(candidate.folder, target, by_block=by_block, command=command)
    return export_transformers(request).folder


def remove_leftovers(run: RunFolder) -> list[str]:
    """Removes exports of evaluations whose process is no more; what could not be removed, a sentence each."""
    shelf = run.exports / EVALUATING
    if not is_folder(shelf):
        return []
    queue = cache(jobs_in_queue)
    complaints: list[str] = []
    for name in sorted(each.removesuffix(_OWNER) for each in names_in(shelf) if each.endswith(_OWNER)):
        path = shelf / f"{name}{_OWNER}"
        try:
            owner = parse_object(read_bounded(path, _BYTES), printable(path))
            job = owner.get(JOB)
            job = job if isinstance(job, str) else None
            if is_over(owner, job, None if job is None else queue()):
                _remove(shelf, name)
        except Missing:
            continue  # its process has just ended
        except (TrainyardError, OSError) as error:
            complaints.append(f"{printable(shelf / name)}, left by an evaluation, cannot be removed: {error}")
    return complaints


def _remove(shelf: Path, name: str) -> None:
    if (shelf / name).exists():
        shutil.rmtree(shelf / name)
    (shelf / f"{name}{_OWNER}").unlink(missing_ok=True)
    if not any(shelf.iterdir()):
        shelf.rmdir()
