"""Loading: of every stored piece, what this rank's layout needs. No layout needs a conversion first."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from data_tools.errors import TrainyardError
from megatron_patches.checkpoint.boxes import sub_boxes
from megatron_patches.engine.interface import StatePiece
from megatron_patches.parallel.tensor_slice import TensorSlice


@dataclass(frozen=True)
class StoredPiece:
    """A stretch of a tensor in one of the checkpoint's files."""

    file: Path
    key: str
    slice: TensorSlice
    start: int
    elements: int


class StoredState:
    """All pieces of a checkpoint, by parameter and kind; opening it reads the files' headers only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pieces: dict[tuple[str, str], list[StoredPiece]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for key, entry in json.loads(file.metadata()["slices"]).items():
                    elements = file.get_slice(key).get_shape()[0]
                    stored = StoredPiece(path, key, _slice(entry), entry["start"], elements)
                    self._pieces.setdefault((entry["name"], entry["kind"]), []).append(stored)

    @property
    def names(self) -> set[str]:
        """Canonical names of the stored parameters."""
        return {name for name, _ in self._pieces}

    @torch.no_grad()
    def restore(self, pieces: Iterable[StatePiece]) -> None:
        """Copy into live pieces whatever the checkpoint holds of them.

        Where no master weights were stored (fp32 training), masters are the weights. At most one stored tensor is in
        memory at a time.

        Raises:
            TrainyardError: an element of a piece is nowhere in the checkpoint.
        """
        for piece in pieces:
            stored = self._pieces.get((piece.name, piece.kind))
            if stored is None and piece.kind == "master":
                stored = self._pieces.get((piece.name, "weight"))
            copied = sum(_copy_common(piece, source) for source in stored or ())
            if copied != piece.tensor.numel():
                raise TrainyardError(
                    f"{self._folder} holds {copied:,} of {piece.tensor.numel():,} elements of {piece.kind} of "
                    f"{piece.name}; it was saved by another model or optimizer, or by another version"
                )


def _slice(entry: dict[str, Any]) -> TensorSlice:
    return TensorSlice(tuple(entry["global_shape"]), tuple((low, high) for low, high in entry["box"]))


def _copy_common(piece: StatePiece, stored: StoredPiece) -> int:
    """Copy the elements both hold, reading no others' rows; how many there were."""
    if stored.slice.global_shape != piece.slice.global_shape:
        return 0
    targets = list(sub_boxes(piece.slice, piece.start, piece.start + piece.tensor.numel()))
    copied = 0
    for source in sub_boxes(stored.slice, stored.start, stored.start + stored.elements):
        met = [(target, box) for target in targets if (box := source.slice.intersection(target.slice)) is not None]
        if not met:
            continue
        with safe_open(stored.file, framework="pt") as file:
            values = file.get_slice(stored.key)[source.offset : source.offset + source.slice.elements]
        for target, box in met:
            part = values.view(source.slice.shape)[source.slice.local(box)]
            into = piece.tensor[target.offset : target.offset + target.slice.elements].view(target.slice.shape)
            into[target.slice.local(box)].copy_(part)
            copied += part.numel()
    return copied
