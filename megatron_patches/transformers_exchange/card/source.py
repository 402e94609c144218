"""The checkpoint's side of a card: its weights by our names, as they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.checkpoint.files.state_tensor import StateTensor
from megatron_patches.checkpoint.offline.stored_tensors import stored_tensors


@dataclass(frozen=True)
class Source:
    """The weights of one checkpoint of ours, whatever layout it was saved by."""

    id: str
    """of its manifest"""
    weights: Mapping[str, StateTensor]
    """by canonical name"""

    @property
    def dtype(self) -> torch.dtype:
        """The one type of all weights.

        Raises ValueError where they are of several.
        """
        (dtype,) = {tensor.dtype for tensor in self.weights.values()}
        return dtype

    def read(self, name: str) -> Tensor:
        """One weight in its row's shape and in its stored type, on the CPU; a piece of it is in memory twice."""
        tensor = self.weights[name]
        values = torch.empty(tensor.elements, dtype=tensor.dtype)
        for start in range(0, tensor.elements, tensor.piece_elements):
            stop = min(start + tensor.piece_elements, tensor.elements)
            tensor.read_into(values[start:stop], start)
        return values.view(tensor.shape)


def open_source(folder: Path, manifest: Manifest) -> Source:
    """The source that a checkpoint's folder is; only headers are read.

    Raises:
        Damaged: a file is not what a checkpoint has.
    """
    weights = {each.name: each for each in stored_tensors(folder, manifest) if each.kind == "weight"}
    return Source(manifest.id, weights)
