"""What there is to say of one checkpoint: its manifest, its tensors, their norms."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.folders import inspect
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.checkpoint.files.state_tensor import PIECE_ELEMENTS, StateTensor
from megatron_patches.checkpoint.offline.stored_tensors import stored_tensors
from megatron_patches.errors import TrainyardError


@dataclass(frozen=True)
class TensorLine:
    """A weight, master or moment of one parameter."""

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    norm: float | None
    """L2; None where tensors were not read"""


@dataclass(frozen=True)
class CheckpointView:
    """What `tools/checkpoint show` says."""

    folder: Path
    manifest: Manifest
    tensors: list[TensorLine]

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return {
            "folder": str(self.folder),
            "manifest": self.manifest.model_dump(),
            "tensors": [vars(line) for line in self.tensors],
        }


def view_checkpoint(folder: Path, norms: bool) -> CheckpointView:
    """Read the manifest and the files' headers; every tensor, a piece at a time, for `norms`.

    Raises:
        TrainyardError: it is visibly damaged.
    """
    manifest = whole_manifest(folder)
    tensors = stored_tensors(folder, manifest)
    lines = [
        TensorLine(
            each.name, each.kind, each.shape, str(each.dtype).removeprefix("torch."), norm_of(each) if norms else None
        )
        for each in tensors
    ]
    return CheckpointView(folder, manifest, lines)


def whole_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint whose files are there in their sizes."""
    inspection = inspect(folder)
    if inspection.manifest is None or inspection.problems:
        raise TrainyardError("; ".join(inspection.problems))
    if inspection.manifest.kind != "checkpoint":
        raise TrainyardError(f"{folder} holds a {inspection.manifest.kind}, no checkpoint")
    return inspection.manifest


def pieces(tensor: StateTensor) -> Iterator[tuple[int, int]]:
    """Ranges of a tensor's elements that are small enough to be held."""
    for start in range(0, tensor.elements, PIECE_ELEMENTS):
        yield start, min(start + PIECE_ELEMENTS, tensor.elements)


def norm_of(tensor: StateTensor) -> float:
    """L2 norm, summed in fp64."""
    return sqrt(sum(tensor.read(start, stop).double().square().sum().item() for start, stop in pieces(tensor)))
