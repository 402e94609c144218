"""Saving: every rank writes its pieces, rank 0 the rest, the manifest last, then one rename."""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from data_tools.atomic_files import HashingWriter, fsync_folder
from data_tools.errors import TrainingFailed
from data_tools.manifest import FileRecord, build_manifest, write_manifest
from megatron_patches.checkpoint.folders import MANIFEST, TRAINER_STATE, checkpoint_name
from megatron_patches.checkpoint.safetensors_stream import write_safetensors
from megatron_patches.engine.interface import StatePiece
from megatron_patches.parallel.process_groups import ProcessGroups


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
    """ids of the artefacts that it came from"""


def save_checkpoint(
    checkpoints: Path, pieces: Iterable[StatePiece], content: CheckpointContent, groups: ProcessGroups
) -> Path:
    """Write a checkpoint and return its folder. Every rank calls it; it returns when the folder is whole.

    Raises:
        TrainingFailed: on every rank if any rank could not write; nothing is left of the folder then.
    """
    final = checkpoints / checkpoint_name(content.step)
    partial = final.with_name(f"{final.name}.{content.launch}.partial")
    _agree(groups, content.step, lambda: _make_empty(partial) if groups.rank == 0 else None)
    records = _agree(groups, content.step, lambda: _write_pieces(partial, pieces, groups.rank))
    _agree(groups, content.step, lambda: _complete(partial, final, records, content) if groups.rank == 0 else None)
    return final


def _agree(groups: ProcessGroups, step: int, action: Any) -> list[Any]:
    """Run an action on every rank and gather the results; if it failed anywhere, all ranks raise the same error."""
    result, problem = None, None
    try:
        result = action()
    except Exception as error:  # noqa: BLE001  whatever it was: the other ranks wait for the answer
        problem = f"rank {groups.rank}: {type(error).__name__}: {error}"
    gathered: list[tuple[Any, str | None]] = [(None, None)] * groups.layout.world_size
    dist.all_gather_object(gathered, (result, problem), group=groups.control_group)
    problems = [text for _, text in gathered if text]
    if problems:
        raise TrainingFailed(
            f"the checkpoint of step {step} could not be written ({'; '.join(problems)}). Free space or repair the "
            "file system, then start the run again: it continues from its last whole checkpoint"
        )
    return [value for value, _ in gathered]


def _make_empty(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _write_pieces(folder: Path, pieces: Iterable[StatePiece], rank: int) -> list[FileRecord]:
    written = [piece for piece in pieces if piece.written_here]
    files = {
        f"weights-{rank:05d}.safetensors": [piece for piece in written if piece.kind == "weight"],
        f"optimizer-{rank:05d}.safetensors": [piece for piece in written if piece.kind != "weight"],
    }
    return [_write_file(folder / name, held) for name, held in files.items() if held]


def _write_file(path: Path, pieces: list[StatePiece]) -> FileRecord:
    tensors = {f"{piece.name}/{piece.kind}": piece.tensor for piece in pieces}
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


def _complete(partial: Path, final: Path, records: list[list[FileRecord]], content: CheckpointContent) -> None:
    own = [
        _write_text(partial / "config.yaml", content.config),
        _write_text(partial / TRAINER_STATE, json.dumps(content.trainer, indent=2) + "\n"),
    ]
    files = [record for rank_records in records for record in rank_records] + own
    write_manifest(
        partial / MANIFEST, build_manifest("checkpoint", files=files, facts=content.facts, parents=content.parents)
    )
    if final.exists():  # a damaged checkpoint of this step, which the run did not resume from
        final.rename(_unused_name(final))
    partial.rename(final)
    fsync_folder(final.parent)


def _unused_name(folder: Path) -> Path:
    number = 1
    while (candidate := folder.with_name(f"{folder.name}.replaced-{number}")).exists():
        number += 1
    return candidate


def _write_text(path: Path, text: str) -> FileRecord:
    with HashingWriter(path) as file:
        file.write(text.encode())
    return FileRecord(path=path.name, size=file.size, sha256=file.sha256)
