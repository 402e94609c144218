"""The optimizer's state under ZeRO 0: it lies beside the weights, and numbers parameters where ZeRO names them."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.deepspeed_folder import listed
from megatron_patches.exchange.zero_partitions import Shards, flat_moments, optimizer_settings


def read_plain_optimizer(
    saved: dict[str, Any], shapes: Mapping[str, tuple[int, ...]], groups: Sequence[Sequence[str]], path: Path
) -> Shards:
    """Masters and moments of one model-parallel rank.

    `saved` is torch's own state, or that of DeepSpeed's optimizers for bf16 and fp16 around it, whose masters are one
    tensor for each parameter or one for each group. `shapes` are the module's parameters in their order.

    Raises:
        TrainyardError: the numbers cannot be matched with names.
    """
    inner = saved.get("optimizer_state_dict", saved)
    names = _names(inner["param_groups"], list(shapes), groups, path)
    read = Shards(optimizer=optimizer_settings(inner["param_groups"][0]))
    for number, (group, held_names) in enumerate(zip(inner["param_groups"], names, strict=True)):
        states = [inner["state"].get(key, {}) for key in group["params"]]
        counted = next((state["step"] for state in states if "step" in state), group.get("step"))
        if counted is not None:
            read.steps[f"{path.name}, group {number}"] = int(counted)
        if "fp32_groups_flat" in saved:
            _add_flat(read, held_names, shapes, saved["fp32_groups_flat"][number], states[0], path)
        else:
            masters = saved["fp32_groups"][number] if "fp32_groups" in saved else [None] * len(states)
            _add_each(read, held_names, shapes, masters, states, path)
    return read


def _names(
    saved: Sequence[dict[str, Any]], names: Sequence[str], groups: Sequence[Sequence[str]], path: Path
) -> list[list[str]]:
    """Names of each group's parameters, in the order of its numbers."""
    if all("param_names" in group for group in saved):
        return [list(group["param_names"]) for group in saved]
    if groups:
        return _names_by_pattern(names, groups, len(saved), path)
    if len(saved) > 1:
        raise TrainyardError(
            f"{path}: the optimizer's {len(saved)} groups number their parameters and do not name them (ZeRO 0). Say "
            "with `groups:` in a YAML for --names which of their names are in which group, or import with "
            "--weights-only"
        )
    return [list(names)]


def _names_by_pattern(names: Sequence[str], groups: Sequence[Sequence[str]], count: int, path: Path) -> list[list[str]]:
    if len(groups) != count:
        raise TrainyardError(f"{path}: the optimizer has {count} groups, the map of names says {len(groups)}")
    held: list[list[str]] = [[] for _ in groups]
    for name in names:
        fitting = [index for index, patterns in enumerate(groups) if any(fnmatchcase(name, each) for each in patterns)]
        if fitting:  # a frozen parameter is in none
            held[fitting[0]].append(name)
    return held


def _add_each(
    read: Shards, names: list[str], shapes: Mapping[str, tuple[int, ...]], masters: Sequence[Tensor | None],
    states: list[dict[str, Any]], path: Path,
) -> None:  # fmt: skip
    if len(names) != len(states):
        raise TrainyardError(
            f"{path}: a group of the optimizer has {len(states)} parameters, by the names it would have {len(names)}; "
            "say with `groups:` in a YAML for --names which are in it, or import with --weights-only"
        )
    for name, master, state in zip(names, masters, states, strict=True):
        tensors = {kind: value for kind, value in state.items() if isinstance(value, Tensor) and value.dim() > 0}
        if master is not None:
            tensors["master"] = master
        wrong = [
            f"{kind} {tuple(value.shape)}" for kind, value in tensors.items() if tuple(value.shape) != shapes[name]
        ]
        if wrong:
            raise TrainyardError(
                f"{path}: in the optimizer's place of {name} {shapes[name]} lie {listed(wrong)}; it has another "
                "order than the module: say with `groups:` in a YAML for --names, or import with --weights-only"
            )
        for kind, value in tensors.items():
            read.add(name, kind, value, 0, value.numel())


def _add_flat(
    read: Shards, names: list[str], shapes: Mapping[str, tuple[int, ...]], master: Tensor, state: dict[str, Any],
    path: Path,
) -> None:  # fmt: skip
    flats = {"master": master, **flat_moments(state, path)}
    needed = sum(prod(shapes[name]) for name in names)
    if any(flat.numel() < needed for flat in flats.values()):
        raise TrainyardError(
            f"{path}: a group of the optimizer has {master.numel():,} elements, by the names it would have {needed:,}; "
            "say with `groups:` in a YAML for --names which are in it, or import with --weights-only"
        )
    offset = 0
    for name in names:
        for kind, flat in flats.items():
            read.add(name, kind, flat, offset, prod(shapes[name]))
        offset += prod(shapes[name])
