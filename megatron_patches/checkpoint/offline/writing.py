"""Writing a checkpoint on one process, from tensors that are read a piece at a time."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from megatron_patches.artefacts.folders import TRAINER_STATE
from megatron_patches.artefacts.manifest import MANIFEST, FileRecord, Manifest, build_manifest, write_manifest
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.atomic_files import HashingWriter, fsync_folder, temporary_path
from megatron_patches.checkpoint.files.safetensors_stream import stream_safetensors
from megatron_patches.checkpoint.files.state_tensor import StateTensor
from megatron_patches.checkpoint.tokenizer_files.travelling import TravellingTokenizer
from megatron_patches.errors import TrainyardError
from megatron_patches.parameters.tensor_slice import TensorSlice


@dataclass(frozen=True)
class OfflineContent:
    """What stands beside the tensors."""

    facts: Mapping[str, Any]
    """of the manifest"""
    trainer: bytes | None
    """`trainer.json`; None with weights alone"""
    config: bytes
    """`config.yaml`"""
    parents: tuple[str, ...]
    """ids of the artefacts that it came from"""
    tokenizer: TravellingTokenizer = field(default_factory=TravellingTokenizer)
    """files that go along"""


@dataclass(frozen=True)
class FilePiece:
    """Elements `start ... stop` of a tensor, one entry of a file."""

    tensor: StateTensor
    start: int
    stop: int

    @property
    def key(self) -> str:
        """Its name in the file; the file's metadata says the rest."""
        return f"{self.tensor.name}/{self.tensor.kind}/{self.start}"

    def as_slice(self) -> dict[str, Any]:
        """The entry of the file's metadata."""
        box = TensorSlice.whole(self.tensor.shape).box
        return {
            "name": self.tensor.name,
            "kind": self.tensor.kind,
            "global_shape": self.tensor.shape,
            "box": box,
            "start": self.start,
        }


def write_offline(folder: Path, tensors: Sequence[StateTensor], files: int, content: OfflineContent) -> Manifest:
    """Write a checkpoint into a new folder: `files` files of weights, and as many of the optimizer's state if any.

    Nothing holds more than a few pieces of `PIECE_ELEMENTS` at a time. The folder appears by one rename, when it is
    whole.

    Raises:
        TrainyardError: the folder exists, there are more files than elements, or a tensor has a hole. OSError as
            writing does. Nothing is left behind then.
    """
    if folder.exists():
        raise TrainyardError(f"{folder} exists; name another folder, or move it away")
    weights = [tensor for tensor in tensors if tensor.kind == "weight"]
    others = [tensor for tensor in tensors if tensor.kind != "weight"]
    planned = {f"weights-{number:05d}": held for number, held in enumerate(plan_files(weights, files))}
    if others:
        planned |= {f"optimizer-{number:05d}": held for number, held in enumerate(plan_files(others, files))}
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_path(folder)
    partial.mkdir()
    try:
        records = [_write_file(partial / f"{name}.safetensors", held) for name, held in planned.items()]
        records.append(_write_bytes(partial / CONFIG, content.config))
        if content.trainer is not None:
            records.append(_write_bytes(partial / TRAINER_STATE, content.trainer))
        records += content.tokenizer.put_into(partial)
        manifest = build_manifest("checkpoint", files=records, facts=content.facts, parents=content.parents)
        write_manifest(partial / MANIFEST, manifest)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    fsync_folder(folder.parent)
    return manifest


def plan_files(tensors: Sequence[StateTensor], files: int) -> list[list[FilePiece]]:
    """Cut tensors, one behind the other, into files of equally many elements and entries of at most `piece_elements`.

    Raises:
        TrainyardError: a file would be empty.
    """
    elements = sum(tensor.elements for tensor in tensors)
    if not 1 <= files <= elements:
        raise TrainyardError(f"{elements:,} elements cannot be cut into {files} files; take between 1 and {elements:,}")
    planned: list[list[FilePiece]] = [[]]
    written = 0
    for tensor in tensors:
        start = 0
        while start < tensor.elements:
            room = elements * len(planned) // files - written
            if room == 0:
                planned.append([])
                continue
            stop = min(start + min(tensor.piece_elements, room), tensor.elements)
            planned[-1].append(FilePiece(tensor, start, stop))
            written += stop - start
            start = stop
    assert len(planned) == files and all(planned)
    return planned


def _write_file(path: Path, held: Sequence[FilePiece]) -> FileRecord:
    announced = {
        piece.key: torch.empty(piece.stop - piece.start, dtype=piece.tensor.dtype, device="meta") for piece in held
    }
    slices = {piece.key: piece.as_slice() for piece in held}
    tensors = (piece.tensor.read(piece.start, piece.stop) for piece in held)
    return stream_safetensors(path, announced, tensors, {"slices": json.dumps(slices)})


def _write_bytes(path: Path, content: bytes) -> FileRecord:
    with HashingWriter(path) as file:
        file.write(content)
    return FileRecord(path=path.name, size=file.size, sha256=file.sha256)
