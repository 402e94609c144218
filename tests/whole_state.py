"""A checkpoint's tensors put together by the safetensors library, whatever layout wrote them."""

import json
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor


def whole_tensors(folder: Path) -> dict[tuple[str, str], Tensor]:
    """Every tensor in its global shape, by parameter and kind; each element must be stored once, and only once."""
    flat: dict[tuple[str, str], Tensor] = {}
    seen: dict[tuple[str, str], Tensor] = {}
    shapes = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key, entry in json.loads(file.metadata()["slices"]).items():
                values, place = file.get_tensor(key), (entry["name"], entry["kind"])
                shape = shapes.setdefault(place, tuple(entry["global_shape"]))
                if place not in flat:
                    flat[place] = torch.zeros(prod(shape), dtype=values.dtype)
                    seen[place] = torch.zeros(prod(shape), dtype=torch.int64)
                numbers = torch.arange(prod(shape)).view(shape)[tuple(slice(*each) for each in entry["box"])]
                where = numbers.reshape(-1)[entry["start"] : entry["start"] + len(values)]
                flat[place][where] = values
                seen[place][where] += 1
    for place, counts in seen.items():
        assert (counts == 1).all(), f"{folder.name}: elements of {place} are stored {counts.unique().tolist()} times"
    return {place: values.view(shapes[place]) for place, values in flat.items()}


def same_state(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same tensors, bit for bit."""
    ours, theirs = whole_tensors(first), whole_tensors(second)
    return ours.keys() == theirs.keys() and all(
        ours[place].dtype == theirs[place].dtype and torch.equal(_bits(ours[place]), _bits(theirs[place]))
        for place in ours
    )


def _bits(values: Tensor) -> Tensor:
    """The bytes themselves: a NaN equals itself, and 0 is not -0."""
    return values.contiguous().view(torch.uint8)
