"""The optimizer's state as ZeRO shares it out: flat partitions of data-parallel ranks, put together by name.

ZeRO 1 and 2 and the bf16 optimizer: each group of parameters is one flat tensor, cut evenly between the ranks and
padded at its end; `param_slice_mappings` says which of a rank's elements are whose. ZeRO 3: every parameter is cut
evenly by itself, its last share padded, and a rank's shares lie one behind the other in the order of `param_shapes`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.deepspeed_folder import listed
from megatron_patches.exchange.foreign import Shard, ShardStretch, reader_of


@dataclass
class Shards:
    """What one model-parallel rank holds, put together from its data-parallel ranks."""

    by_kind: dict[tuple[str, str], list[ShardStretch]] = field(default_factory=dict)
    """by (name, kind)"""
    dtypes: dict[tuple[str, str], torch.dtype] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    """count of updates that each file has"""
    optimizer: dict[str, Any] = field(default_factory=dict)
    """settings of the optimizer's first group"""

    def add(self, name: str, kind: str, tensor: Tensor, offset: int, elements: int) -> None:
        """The next elements of a parameter: `elements` of a flat tensor, from `offset` on."""
        held = self.by_kind.setdefault((name, kind), [])
        start = held[-1].start + held[-1].elements if held else 0
        held.append(ShardStretch(start, elements, reader_of(tensor, offset)))
        self.dtypes[name, kind] = tensor.dtype

    def shards(self, shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[tuple[str, str], Shard]:
        """Whole shards of these shapes.

        Raises:
            TrainyardError: the partitions hold more or fewer elements of a parameter than its shape has.
        """
        wrong = [
            f"{kind} of {name} ({sum(each.elements for each in held):,} of {prod(shapes[name]):,})"
            for (name, kind), held in self.by_kind.items()
            if sum(each.elements for each in held) != prod(shapes[name])
        ]
        if wrong:
            raise TrainyardError(
                f"the partitions of {where} together do not have as many elements as the parameters: "
                f"{listed(wrong)}. Files of different saves are mixed, or a rank's are missing"
            )
        return {key: Shard(shapes[key[0]], self.dtypes[key], tuple(held)) for key, held in self.by_kind.items()}


def merge_partitions(states: Sequence[tuple[Path, dict[str, Any]]]) -> Shards:
    """ZeRO 1 and 2: `optimizer_state_dict` of each data-parallel rank, in the order of the ranks.

    Raises:
        TrainyardError: a file does not say which of its elements are whose, or a parameter's do not follow each other.
    """
    merged = Shards()
    for path, state in states:
        mappings = state.get("param_slice_mappings")
        if mappings is None:
            raise TrainyardError(
                f"{path} does not say which parameters its elements belong to (param_slice_mappings): DeepSpeed before "
                "0.7 wrote it. Load and save it with a newer one, or import with --weights-only"
            )
        masters = state["single_partition_of_fp32_groups"]
        for number, (mapping, master) in enumerate(zip(mappings, masters, strict=True)):
            flats = {"master": master, **_moments(state, number, path, merged)}
            for name, address in mapping.items():
                _check_follows(merged, name, address.start, path)
                for kind, flat in flats.items():
                    if address.start + address.numel > flat.numel():
                        raise TrainyardError(f"{path} ends within {kind} of {name}: it is damaged; copy it again")
                    merged.add(name, kind, flat, address.start, address.numel)
    return merged


def _check_follows(merged: Shards, name: str, start: int, path: Path) -> None:
    """A parameter that an earlier rank began goes on at the very beginning of this one's partition."""
    if start > 0 and (name, "master") in merged.by_kind:
        raise TrainyardError(
            f"{path} holds elements of {name} that do not follow those of the rank before; files of different saves "
            "are mixed, or named in another order than their ranks had"
        )


def _moments(state: dict[str, Any], number: int, path: Path, merged: Shards) -> dict[str, Tensor]:
    """The flat moments of a group; the count of updates is noted."""
    saved = state["base_optimizer_state"]
    if isinstance(saved, dict):
        group = saved["param_groups"][number]
        merged.optimizer = merged.optimizer or optimizer_settings(group)
        held = saved["state"].get(group["params"][0], {})
        counted = held.get("step", group.get("step"))
    else:
        held = saved[number]
        counted = held.get("step", state.get("base_optimizer_state_step"))
    if counted is not None:
        merged.steps[f"{path.name}, group {number}"] = int(counted)
    return flat_moments(held, path)


def optimizer_settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """What a group of torch's optimizers says beside its parameters."""
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def flat_moments(held: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """What the optimizer keeps of each element; raises TrainyardError at a tensor that is not of that sort."""
    moments = {}
    for kind, value in held.items():
        if not isinstance(value, Tensor) or value.dim() == 0:
            continue
        if value.dim() != 1:
            raise TrainyardError(
                f"{path} keeps {kind} as a tensor of {tuple(value.shape)}, not one number an element; import it with "
                "--weights-only"
            )
        moments[kind] = value
    return moments


def merge_shares(states: Sequence[tuple[Path, dict[str, Any]]], groups: Sequence[Mapping[str, Any]]) -> Shards:
    """ZeRO 3: `optimizer_state_dict` of each data-parallel rank, in the order of the ranks.

    `groups` are the names and shapes of the parameters in each flat tensor (`param_shapes`).
    """
    merged, ranks = Shards(), len(states)
    for rank, (path, state) in enumerate(states):
        flats = state["fp32_flat_groups"]
        if len(flats) != len(groups):
            raise TrainyardError(
                f"{path} has {len(flats)} flat groups, the model's state names {len(groups)}; it was saved with groups "
                "stepped in parts: import it with DeepSpeed's zero_to_fp32 and --weights-only"
            )
        for number, (shapes, master) in enumerate(zip(groups, flats, strict=True)):
            inner = state["optimizer_state_dict"]
            merged.optimizer = merged.optimizer or optimizer_settings(inner["param_groups"][0])
            held = inner["state"].get(number, {})
            if "step" in held:
                merged.steps[f"{path.name}, group {number}"] = int(held["step"])
            kinds = {"master": master, **flat_moments(held, path)}
            for name, offset, elements in _shares(shapes, rank, ranks):
                for kind, flat in kinds.items():
                    merged.add(name, kind, flat, offset, elements)
    return merged


def _shares(shapes: Mapping[str, Any], rank: int, ranks: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and number of elements of each share of one rank."""
    offset = 0
    for name, shape in shapes.items():
        whole = prod(shape)
        share = -(-whole // ranks)
        yield name, offset, max(0, min(share, whole - rank * share))
        offset += share
