"""Loading the newest whole checkpoint, together: every byte of it is read and hashed by one rank, and all take the
same checkpoint."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from megatron_patches.artefacts.folders import TRAINER_STATE, inspect, list_checkpoints
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.marks import is_damaged, mark_damaged, mark_verified
from megatron_patches.atomic_files import hash_file
from megatron_patches.checkpoint.files.stored_files import StoredPiece, read_header
from megatron_patches.checkpoint.load import ODD_CONTENT, DamagedCheckpoint, StateLoader, state_files
from megatron_patches.checkpoint.resume_check import on_branch
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import shortened
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.sizes import counted

Demands = Callable[[Path, Manifest, Mapping[str, Any]], list[str]]


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
    allow_from_scratch: bool = False,
    demands: Demands = lambda *_: [],
) -> Resumable | None:
    """Fill the live pieces from the newest checkpoint that is whole; None where the run has no checkpoint.

    What a damaged one has left in the pieces is written over by the next. `report` hears of damaged ones. One that is
    invalid because of what it came from is passed over too, unless `allow_inherited_fault`.

    Args:
        allow_from_scratch: also None where no checkpoint is whole; those that were found damaged before are not read.
        demands: what else is wrong with a checkpoint whose files are whole, by its manifest and its trainer's state.

    Raises:
        Damaged: there are checkpoints, and all of them are damaged: starting over would be silent loss.
        Refused: a whole one lacks elements of a piece.
    """
    folders = groups.from_rank_0(_present(checkpoints) if groups.rank == 0 else None)
    written_over = False
    for folder in map(Path, folders):
        looked = _look(folder, allow_inherited_fault, allow_from_scratch, demands) if groups.rank == 0 else None
        manifest, trainer, problems = groups.from_rank_0(looked)
        if not problems:
            problems, began = _load_together(folder, manifest, pieces, groups)
            written_over |= began and bool(problems)
        if not problems:
            if groups.rank == 0:
                with suppress(OSError):  # a full disk, or somebody else's folder: it was read all the same
                    mark_verified(folder, "a resume")
            return Resumable(folder, manifest, trainer)
        if groups.rank == 0 and manifest is not None:
            problems += _mark(folder, problems)
        report(folder, problems)
    if folders and (written_over or not allow_from_scratch):
        raise Damaged(_all_damaged(checkpoints, len(folders), allow_from_scratch))
    return None


def _present(checkpoints: Path) -> list[str]:
    """Stand-in, as `on_branch`."""
    return [
        str(each.folder) for each in on_branch(checkpoints, [inspect(f, True) for f in list_checkpoints(checkpoints)])
    ]


def _all_damaged(checkpoints: Path, number: int, allow_from_scratch: bool) -> str:
    what = f"all {counted(number, 'checkpoint')} in {checkpoints} are damaged (see above)"
    if allow_from_scratch:  # the first weights are not those of a new run any more
        return f"{what}, and are marked so now; start the run again: it begins at step 0 beside them"
    return (
        f"{what}; restore one from a copy, or add --checkpoint.allow_from_scratch true to begin at step 0 beside them"
    )


def _mark(folder: Path, problems: list[str]) -> list[str]:
    """What kept the damage from being put on record, if anything did: a disk that fails may not be written to."""
    try:
        mark_damaged(folder, "; ".join(problems))
    except OSError as error:
        return [f"the folder cannot be marked: {error}"]
    return []


def _look(
    folder: Path, allow_inherited_fault: bool, pass_over_marked: bool, demands: Demands
) -> tuple[Manifest | None, dict[str, Any], list[str]]:
    """Manifest and trainer's state, and what is wrong with them; whatever a file holds, this ends in an answer."""
    inspection = inspect(folder, allow_inherited_fault)
    manifest, problems = inspection.manifest, inspection.problems
    if manifest is None or problems:
        return manifest, {}, problems
    if manifest.facts.get("content") == "weights":
        return manifest, {}, [f"{folder} holds weights alone: a run cannot resume from it"]
    if pass_over_marked and is_damaged(folder):
        return manifest, {}, [f"{folder} was found damaged before"]
    path = folder / TRAINER_STATE
    try:
        trainer = parse_object(read_bounded(path), str(path))
    except TrainyardError as error:
        return manifest, {}, [str(error)]
    return manifest, trainer, demands(folder, manifest, trainer)


def _load_together(
    folder: Path, manifest: Manifest, pieces: Sequence[StatePiece], groups: ProcessGroups
) -> tuple[list[str], bool]:
    """Problems found by any rank, the same list on all; none when the pieces hold the checkpoint's state. Also whether
    anything was written to the pieces."""
    stored, problems = _headers(folder, manifest, groups)
    if problems:
        return problems, False
    loader, needed, problem = _plan(folder, stored, pieces)
    if problems := sorted({text for text in _gather(problem, groups) if text}):
        return problems, False
    readers = choose_readers(_gather(needed, groups), {file.path: file.size for file in manifest.files})
    mine = [problem for file in manifest.files if (problem := _read(loader, folder, file, readers, groups.rank))]
    problems = sorted({problem for found in _gather(mine, groups) for problem in found})
    missing = [] if problems else [text for found in _gather(loader.missing()[:3], groups) for text in found]
    if missing:
        raise Refused(f"{'; '.join(missing[:3])}; it was saved by another model, or by another version")
    return problems, True


def _plan(
    folder: Path, stored: Sequence[StoredPiece], pieces: Sequence[StatePiece]
) -> tuple[StateLoader, dict[str, int], str | None]:
    """What this rank needs of which file, or why that cannot be told: a rank that raised would leave others waiting."""
    loader = StateLoader(folder, stored, pieces)
    try:
        return loader, loader.bytes_needed(), None
    except ODD_CONTENT as error:
        return loader, {}, f"{folder}: its pieces do not fit together ({type(error).__name__}: {shortened(error)})"


def _headers(folder: Path, manifest: Manifest, groups: ProcessGroups) -> tuple[list[StoredPiece], list[str]]:
    """The pieces of all files; each rank reads its share of the headers."""
    found: list[StoredPiece] = []
    problems: list[str] = []
    for file in state_files(manifest)[groups.rank :: groups.layout.world_size]:
        try:
            found += read_header(folder / file)
        except (*ODD_CONTENT, OSError) as error:
            problems.append(f"{folder / file}: {shortened(error)}")
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
    except ODD_CONTENT as error:
        return f"{folder / file.path} cannot be read ({type(error).__name__}: {shortened(error)})"
    return None


def _gather(value: Any, groups: ProcessGroups) -> list[Any]:
    gathered: list[Any] = [None] * groups.layout.world_size
    dist.all_gather_object(gathered, value, group=groups.control_group)
    return gathered
