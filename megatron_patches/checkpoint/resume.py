"""Loading the newest whole checkpoint, together: every byte of it is read and hashed by one rank, and all take the
same checkpoint."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from megatron_patches.artefacts.folders import TRAINER_STATE, inspect, list_checkpoints
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.marks import mark_damaged, mark_verified
from megatron_patches.atomic_files import hash_file
from megatron_patches.checkpoint.files.stored_files import BadHeader, StoredPiece, read_header
from megatron_patches.checkpoint.load import DamagedCheckpoint, StateLoader, state_files
from megatron_patches.errors import Damaged, Refused
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.state_piece import StatePiece


@dataclass(frozen=True)
class Resumable:
    """A checkpoint whose every byte was compared with its manifest, and whose tensors are loaded."""

    folder: Path
    manifest: Manifest
    trainer: dict[str, Any]


def load_newest_whole(
    checkpoints: Path,
    pieces: Sequence[StatePiece],
    groups: ProcessGroups,
    report: Callable[[Path, list[str]], None],
    allow_inherited_fault: bool = False,
) -> Resumable | None:
    """Fill the live pieces from the newest checkpoint that is whole; None where the run has no checkpoint.

    What a damaged one has left in the pieces is written over by the next. `report` hears of damaged ones. One that is
    invalid because of what it came from is passed over too, unless `allow_inherited_fault`.

    Raises:
        Damaged: there are checkpoints, and all of them are damaged: starting over would be silent loss.
        Refused: a whole one lacks elements of a piece.
    """
    folders = groups.from_rank_0([str(path) for path in list_checkpoints(checkpoints)])
    for folder in map(Path, folders):
        manifest, problems = groups.from_rank_0(_look(folder, allow_inherited_fault) if groups.rank == 0 else None)
        if not problems:
            problems = _load_together(folder, manifest, pieces, groups)
        if not problems:
            if groups.rank == 0:
                mark_verified(folder, "a resume")
            trainer = json.loads((folder / TRAINER_STATE).read_text()) if groups.rank == 0 else None
            return Resumable(folder, manifest, groups.from_rank_0(trainer))
        if groups.rank == 0 and manifest is not None:
            problems += _mark(folder, problems)
        report(folder, problems)
    if folders:
        raise Damaged(
            f"all {len(folders)} checkpoints in {checkpoints} are damaged (see above); restore one from a copy, or "
            "move the folder away to start the run over"
        )
    return None


def _mark(folder: Path, problems: list[str]) -> list[str]:
    """What kept the damage from being put on record, if anything did: a disk that fails may not be written to."""
    try:
        mark_damaged(folder, "; ".join(problems))
    except OSError as error:
        return [f"the folder cannot be marked: {error}"]
    return []


def _look(folder: Path, allow_inherited_fault: bool) -> tuple[Manifest | None, list[str]]:
    inspection = inspect(folder, allow_inherited_fault)
    manifest, problems = inspection.manifest, inspection.problems
    if manifest is not None and manifest.facts.get("content") == "weights":
        problems = [*problems, f"{folder} holds weights alone: a run cannot resume from it"]
    return manifest, problems


def _load_together(folder: Path, manifest: Manifest, pieces: Sequence[StatePiece], groups: ProcessGroups) -> list[str]:
    """Problems found by any rank, the same list on all; none when the pieces hold the checkpoint's state."""
    stored, problems = _headers(folder, manifest, groups)
    if problems:
        return problems
    loader = StateLoader(folder, stored, pieces)
    readers = choose_readers(_gather(loader.bytes_needed(), groups), {file.path: file.size for file in manifest.files})
    mine = [problem for file in manifest.files if (problem := _read(loader, folder, file, readers, groups.rank))]
    problems = sorted({problem for found in _gather(mine, groups) for problem in found})
    missing = [] if problems else [text for found in _gather(loader.missing()[:3], groups) for text in found]
    if missing:
        raise Refused(f"{'; '.join(missing[:3])}; it was saved by another model, or by another version")
    return problems


def _headers(folder: Path, manifest: Manifest, groups: ProcessGroups) -> tuple[list[StoredPiece], list[str]]:
    """The pieces of all files; each rank reads its share of the headers."""
    found: list[StoredPiece] = []
    problems: list[str] = []
    for file in state_files(manifest)[groups.rank :: groups.layout.world_size]:
        try:
            found += read_header(folder / file)
        except (BadHeader, OSError) as error:
            problems.append(f"{folder / file}: {error}")
    gathered = _gather((found, problems), groups)
    return [piece for pieces, _ in gathered for piece in pieces], sorted(
        {problem for _, problems in gathered for problem in problems}
    )


def choose_readers(needed: Sequence[Mapping[str, int]], sizes: Mapping[str, int]) -> dict[str, int]:
    """The rank that reads each file whole: one that needs most of it, and of those one with least to read so far.

    `needed` are the bytes that each rank takes of each file; the same on every rank, and so is the result.
    """
    readers: dict[str, int] = {}
    load = [0] * len(needed)
    for file in sorted(sizes, key=lambda name: (-sizes[name], name)):
        most = max(counts.get(file, 0) for counts in needed)
        readers[file] = min(
            (rank for rank, counts in enumerate(needed) if counts.get(file, 0) == most), key=lambda rank: load[rank]
        )
        load[readers[file]] += sizes[file]
    return readers


def _read(loader: StateLoader, folder: Path, file: Any, readers: Mapping[str, int], rank: int) -> str | None:
    """What is wrong with a file, as far as this rank reads it."""
    whole = readers[file.path] == rank
    try:
        if file.path.endswith(".safetensors"):
            loader.read(file.path, file.sha256 if whole else None)
        elif whole and hash_file(folder / file.path)[0] != file.sha256:
            return f"{folder / file.path} does not have the sha256 that its manifest says"
    except DamagedCheckpoint as error:
        return str(error)
    except OSError as error:
        return f"{folder / file.path} cannot be read: {error}"
    return None


def _gather(value: Any, groups: ProcessGroups) -> list[Any]:
    gathered: list[Any] = [None] * groups.layout.world_size
    dist.all_gather_object(gathered, value, group=groups.control_group)
    return gathered
