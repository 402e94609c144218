"""Two checkpoints side by side, whatever layouts wrote them."""

from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch

from megatron_patches.checkpoint.files.state_tensor import StateTensor
from megatron_patches.checkpoint.offline.stored_tensors import stored_tensors
from megatron_patches.checkpoint.offline.view import pieces, whole_manifest


@dataclass(frozen=True)
class TensorDifference:
    """One tensor that is not the same in both."""

    name: str
    kind: str
    what: str
    """in which only, or how shapes or types differ, or how many elements"""
    largest: float | None = None
    """absolute difference of two elements"""
    relative: float | None = None
    """L2 norm of the difference over that of the first"""


@dataclass(frozen=True)
class Comparison:
    """What differs."""

    facts: list[tuple[str, Any, Any]]
    tensors: list[TensorDifference]
    compared: int
    """tensors that both have"""
    same: int
    """of these, the same bit for bit"""

    @property
    def differs(self) -> bool:
        """Whether any tensor does; facts of two saves of one state may."""
        return bool(self.tensors)

    def as_json(self) -> dict[str, Any]:
        """For other programs."""
        return asdict(self) | {"differs": self.differs}


def compare(first: Path, second: Path) -> Comparison:
    """Read both, a piece of each tensor at a time; elements are the same if their bits are."""
    manifests = whole_manifest(first), whole_manifest(second)
    ours, theirs = (
        {(each.name, each.kind): each for each in stored_tensors(folder, manifest)}
        for folder, manifest in zip((first, second), manifests, strict=True)
    )
    found = [TensorDifference(*key, f"only in {first.name}") for key in sorted(ours.keys() - theirs.keys())]
    found += [TensorDifference(*key, f"only in {second.name}") for key in sorted(theirs.keys() - ours.keys())]
    both = sorted(ours.keys() & theirs.keys())
    different = [each for key in both if (each := _compare(ours[key], theirs[key])) is not None]
    before, after = (manifest.facts for manifest in manifests)
    facts = [
        (key, before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    return Comparison(facts, [*found, *different], len(both), len(both) - len(different))


def _compare(ours: StateTensor, theirs: StateTensor) -> TensorDifference | None:
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        what = f"{list(ours.shape)} {ours.dtype} and {list(theirs.shape)} {theirs.dtype}".replace("torch.", "")
        return TensorDifference(ours.name, ours.kind, what)
    count, largest, squares, norm = 0, 0.0, 0.0, 0.0
    for start, stop in pieces(ours):
        here, there = ours.read(start, stop), theirs.read(start, stop)
        count += int((_bits(here) != _bits(there)).sum())
        here, difference = here.double(), here.double() - there.double()
        largest = max(largest, difference.abs().max().item())
        squares, norm = squares + difference.square().sum().item(), norm + here.square().sum().item()
    if not count:
        return None
    relative = sqrt(squares / norm) if norm else float("inf")
    return TensorDifference(ours.name, ours.kind, f"{count:,} of {ours.elements:,} elements", largest, relative)


def _bits(values: torch.Tensor) -> torch.Tensor:
    """So that a NaN equals itself, and 0 is not -0."""
    return values.view({4: torch.int32, 2: torch.int16}[values.element_size()])
