"""Saving: every rank writes its pieces, rank 0 the rest, the manifest last, then one rename; then what the rules do
not keep goes.

All of it may run beside training, in one thread of each rank: it talks over `saving_group`, which nothing else uses.
"""

import errno
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os.path import lexists
from pathlib import Path
from typing import Any

import torch.distributed as dist

from megatron_patches.artefacts.folders import TRAINER_STATE, Content, checkpoint_name, next_start, replaced_path
from megatron_patches.artefacts.manifest import MANIFEST, FileRecord, build_manifest, write_manifest
from megatron_patches.artefacts.marks import mark_verified, pin
from megatron_patches.artefacts.retention import known_checkpoints, superfluous
from megatron_patches.artefacts.run_folder import CONFIG, RunFolder
from megatron_patches.artefacts.unfinished import delete_folder, saving_path
from megatron_patches.atomic_files import HashingWriter, drop_from_page_cache, fsync_folder, hash_file
from megatron_patches.checkpoint.checkpoint_config import CheckpointConfig
from megatron_patches.checkpoint.files.safetensors_stream import write_safetensors
from megatron_patches.checkpoint.tokenizer_files.travelling import TravellingTokenizer
from megatron_patches.errors import Refused, TrainingFailed, TrainyardError
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.parallel.state_piece import StatePiece
from megatron_patches.run.ownership import has_begun, later_launches
from megatron_patches.sizes import counted


@dataclass(frozen=True)
class CheckpointContent:
    """What rank 0 adds to the pieces."""

    step: int
    launch: str
    """id of the launch that saves"""
    facts: Mapping[str, Any]
    """of the manifest"""
    trainer: Mapping[str, Any]
    """progress and callbacks' states, JSON"""
    config: str
    """resolved configuration, YAML"""
    parents: tuple[str, ...]
    """ids of the artefacts that it came from; of weights of a step that is saved whole too, those of that one"""
    tokenizer: TravellingTokenizer = field(default_factory=TravellingTokenizer)
    """files that go along"""
    pin: str | None = None
    """why it is to be kept whatever the rules say"""


@dataclass(frozen=True)
class WrittenCheckpoint:
    """A checkpoint that is whole on the disk."""

    folder: Path
    id: str
    """of its manifest"""
    files: tuple[FileRecord, ...]
    removed: tuple[str, ...] = ()
    """names of older checkpoints that the rules gave up for it"""
    complaint: str | None = None
    """what kept another one from being deleted, or stays of it"""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)


def write_checkpoint(
    checkpoints: Path, pieces: Iterable[StatePiece], content: CheckpointContent, kind: Content, groups: ProcessGroups
) -> WrittenCheckpoint:
    """Write a checkpoint; every rank calls it, and it returns when the folder is whole.

    Raises:
        TrainingFailed: on every rank if any rank could not write; nothing is left of the folder then.
    """
    final = checkpoints / checkpoint_name(content.step, kind)
    partial = saving_path(final, content.launch)
    written = [piece for piece in pieces if piece.written_here and (kind == "full" or piece.kind == "weight")]

    def agree(action: Callable[[], Any]) -> list[Any]:
        return _agree(groups, f"the checkpoint of step {content.step} could not be written", action, checkpoints)

    try:
        agree(lambda: _make_empty(partial) if groups.rank == 0 else None)
        records = agree(lambda: _write_pieces(partial, written, groups.rank))
        manifest_id, files = agree(
            lambda: _complete(partial, final, records, content, kind) if groups.rank == 0 else None
        )[0]
    except TrainingFailed:
        if groups.rank == 0:  # a disk that is full gets its space back at once
            with suppress(OSError, Refused):
                delete_folder(partial)
        raise
    return WrittenCheckpoint(final, manifest_id, tuple(files))


def _agree(groups: ProcessGroups, failure: str, action: Callable[[], Any], checkpoints: Path) -> list[Any]:
    """Run an action on every rank and gather the results; if it failed anywhere, all ranks raise the same error."""
    result, problem = None, None
    try:
        result = action()
    except Exception as error:  # noqa: BLE001  whatever it was: the other ranks wait for the answer
        problem = f"rank {groups.rank}: {type(error).__name__}: {error}", _remedy(error, checkpoints)
    gathered: list[tuple[Any, tuple[str, str] | None]] = [(None, None)] * groups.layout.world_size
    dist.all_gather_object(gathered, (result, problem), group=groups.saving_group)
    problems = [problem for _, problem in gathered if problem]
    if problems:
        told = "; ".join(text for text, _ in problems)
        remedy = f"{problems[0][1]}, then start the run again"
        raise TrainingFailed(f"{failure} ({told}). {remedy}; {next_start(checkpoints)}")
    return [value for value, _ in gathered]


def _remedy(error: Exception, checkpoints: Path) -> str:
    run = checkpoints.parent
    if not run.is_dir():
        return f"The run's folder {run} was deleted or moved while the run was at work: put it back"
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk or quota of {run} is full: free space there, or keep fewer checkpoints (checkpoint.keep_last)"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"Make {checkpoints} writable again"
    if isinstance(error, Refused):
        return "Put that right"  # the error itself says how
    return f"Repair the file system of {run}"


def _make_empty(folder: Path) -> None:
    """A run's folder that was deleted is not made anew: what is saved alone there would be no run."""
    folder.parent.mkdir(exist_ok=True)
    if lexists(folder):
        delete_folder(folder)
    folder.mkdir()


def _write_pieces(folder: Path, pieces: Sequence[StatePiece], rank: int) -> list[FileRecord]:
    files = {
        f"weights-{rank:05d}.safetensors": [piece for piece in pieces if piece.kind == "weight"],
        f"optimizer-{rank:05d}.safetensors": [piece for piece in pieces if piece.kind != "weight"],
    }
    return [write_pieces(folder / name, held) for name, held in files.items() if held]


def write_pieces(path: Path, pieces: Sequence[StatePiece]) -> FileRecord:
    """One file of a checkpoint, with the place of each piece in its header; one piece a parameter and kind."""
    tensors = {f"{piece.name}/{piece.kind}": piece.tensor for piece in pieces}
    assert len(tensors) == len(pieces), f"{path.name} would hold two pieces of one name"
    slices = {f"{piece.name}/{piece.kind}": _slice_entry(piece) for piece in pieces}
    return write_safetensors(path, tensors, {"slices": json.dumps(slices)})


def _slice_entry(piece: StatePiece) -> dict[str, Any]:
    return {
        "name": piece.name,
        "kind": piece.kind,
        "global_shape": piece.slice.global_shape,
        "box": piece.slice.box,
        "start": piece.start,
    }


def _complete(
    partial: Path, final: Path, records: list[list[FileRecord]], content: CheckpointContent, kind: Content
) -> tuple[str, list[FileRecord]]:
    """Rank 0's part: what is left to write, the manifest, the name; id and files of the manifest."""
    own = [
        _write_text(partial / CONFIG, content.config),
        _write_text(partial / TRAINER_STATE, json.dumps(content.trainer, indent=2) + "\n"),
        *content.tokenizer.put_into(partial),
    ]
    files = [record for rank_records in records for record in rank_records] + own
    facts = {**content.facts, "content": kind}
    manifest = build_manifest("checkpoint", files=files, facts=facts, parents=content.parents)
    if content.pin and kind == "full":
        pin(partial, content.pin)
    write_manifest(partial / MANIFEST, manifest)
    put_in_place(partial, final, content.launch)
    return manifest.id, files


def put_in_place(partial: Path, final: Path, launch: str) -> None:
    """Give a save that is whole its name; this process may have stood still between any two of these lines.

    Raises:
        Refused: a later launch has begun. Nothing of its own is moved then.
        OSError: it saved this very step at this very moment, or the folder cannot be written to.
    """
    refuse_where_taken_over(final, launch)
    if lexists(final):  # of this step, and the run did not resume from it: damaged, or left behind
        aside = replaced_path(final)
        final.rename(aside)
        try:
            refuse_where_taken_over(final, launch)
        except Refused:
            aside.rename(final)  # it may be the later launch's own
            raise
    partial.rename(final)  # fails where a later launch has put its own there
    fsync_folder(final.parent)


def refuse_where_taken_over(final: Path, launch: str) -> None:
    """A launch that stood still while it wrote must not put its checkpoint among those of the one that went on."""
    later = later_launches(RunFolder(final.parents[1]).launches / launch)
    if beginners := [each.name for each in later if has_begun(each)]:
        raise Refused(f"launch {beginners[-1]} has taken the run over and trains already: this save is left out")


def _write_text(path: Path, text: str) -> FileRecord:
    with HashingWriter(path) as file:
        file.write(text.encode())
    return FileRecord(path=path.name, size=file.size, sha256=file.sha256)


def tidy(written: WrittenCheckpoint, rules: CheckpointConfig, groups: ProcessGroups) -> WrittenCheckpoint:
    """Delete what the rules do not keep, now that there is a newer checkpoint; every rank calls it.

    Nothing goes before the newer one was read back from the disk, by all ranks together, and found whole.

    Raises:
        TrainingFailed: on every rank, if the new checkpoint is not what was written.
    """

    def agree(failure: str, action: Callable[[], Any]) -> list[Any]:
        return _agree(groups, failure, action, written.folder.parent)

    name = written.folder.name
    going, complaint = agree(
        f"{written.folder.parent} cannot be read", lambda: _superseded(written, rules) if groups.rank == 0 else None
    )[0]
    if not going:
        return replace(written, complaint=complaint)
    agree(f"{name} is not what was just written", lambda: _read_back(written, groups))
    removed, complaint = agree(
        f"older checkpoints than {name} cannot be deleted",
        lambda: _delete_all(written, going, groups.layout.world_size) if groups.rank == 0 else None,
    )[0]
    return replace(written, removed=removed, complaint=complaint)


def _superseded(written: WrittenCheckpoint, rules: CheckpointConfig) -> tuple[list[Path], str | None]:
    """What may go once the new checkpoint is verified; or nothing, and why: what was promoted must not go."""
    try:
        known = known_checkpoints(RunFolder(written.folder.parents[1]))
    except (TrainyardError, OSError) as error:  # such as a note that its writer alone may read
        return [], f"no older checkpoint is deleted: {error}"
    verified = [replace(each, verified=True) if each.folder == written.folder else each for each in known]
    return [each.folder for each in superfluous(verified, rules)], None


def _read_back(written: WrittenCheckpoint, groups: ProcessGroups) -> None:
    """Hash this rank's share of the files: others than it wrote, where there are others, past the page cache."""
    size = groups.layout.world_size
    for record in written.files[(groups.rank + size // 2) % size :: size]:
        path = written.folder / record.path
        drop_from_page_cache(path)
        if hash_file(path)[0] != record.sha256:
            raise OSError(f"{path} does not have the sha256 that was written")


def _delete_all(written: WrittenCheckpoint, going: Sequence[Path], readers: int) -> tuple[tuple[str, ...], str | None]:
    """Names of the folders that are gone, and what else is to be told: that one cannot go is no reason to end a run."""
    try:
        mark_verified(written.folder, f"{counted(readers, 'rank')} after saving it")
    except OSError as error:
        return (), f"no older checkpoint is deleted: {written.folder.name} cannot be marked as verified: {error}"
    removed: list[str] = []
    told: list[str] = []
    for folder in going:
        try:
            told += filter(None, [delete_folder(folder)])
        except (Refused, OSError) as error:
            told.append(f"{folder.name} cannot be deleted: {error}")
        else:
            removed.append(folder.name)
    return tuple(removed), "; ".join(told) or None
