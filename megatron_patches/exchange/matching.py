"""From their tensors to ours, strictly: every name of theirs is used, every parameter of ours is found, once."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from megatron_patches.checkpoint.files.state_tensor import Reader, StateTensor, Stretch
from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.deepspeed_folder import listed
from megatron_patches.exchange.foreign import ForeignTensor, Shard
from megatron_patches.foreign.printable import shortened
from megatron_patches.parameters.name_map import NameMap
from megatron_patches.parameters.row import ParameterRow, cuts_of
from megatron_patches.parameters.tensor_slice import TensorSlice
from megatron_patches.run.config import RunConfig

NAMES_TOLD = 8
"""of each list of a mismatch"""

Matched = dict[tuple[str, str], StateTensor]
"""by our name and the kind"""


@dataclass(frozen=True)
class Part:
    """A box whose elements lie in a shard from `offset` on."""

    slice: TensorSlice
    offset: int


def match_tensors(
    tensors: Sequence[ForeignTensor], config: RunConfig, names: NameMap, average_replicas: bool, all_names: bool = False
) -> Matched:
    """Our tensors, of whatever kinds there are, in the places that our layers have.

    What tensor-parallel ranks hold copies of (norms, some biases) must be the same on all of them, unless they are to
    be averaged. `all_names` tells every name of a mismatch, in place of the first ones.

    Raises:
        TrainyardError: with all names that are not used, missing, double or of another shape.
    """
    rows = {row.name: row for row in config.parameters}
    found = _by_our_names(tensors, rows, names, all_names)
    parts = {len(tensor.shards) for tensor in tensors}
    for each in parts:
        _check_tensor_parallel(config, each)
    _check_shapes(found, rows, config)
    matched: Matched = {}
    for (name, kind), candidates in found.items():
        made = [_state_tensor(each, rows[name], kind, config, names, average_replicas) for each in candidates]
        _require_equal(made, [each.name for each in candidates])
        matched[name, kind] = made[0]
    return matched


def _check_tensor_parallel(config: RunConfig, tensor: int) -> None:
    """Raise TrainyardError if the model cannot be shared by so many tensor-parallel ranks: theirs is another one."""
    cuts = cuts_of(config.parameters)
    wrong = [f"model.{key} {size}" for key, (cut, size) in cuts.items() if not cut.divides(size, tensor)]
    if wrong:
        raise TrainyardError(
            f"the checkpoint's matrices are cut for {tensor} tensor-parallel ranks, which {config.name} cannot be: "
            f"{' and '.join(wrong)} cannot be shared by them"
        )


def _by_our_names(
    tensors: Sequence[ForeignTensor], rows: Mapping[str, ParameterRow], names: NameMap, all_names: bool
) -> dict[tuple[str, str], list[ForeignTensor]]:
    found: dict[tuple[str, str], list[ForeignTensor]] = {}
    unused = {}
    for tensor in tensors:
        ours = names.to_ours(tensor.name)
        if names.ignores(tensor.name):
            continue
        if ours is None or ours not in rows:
            meaning = f" (which would be {ours})" if ours else ""
            unused[tensor.name] = f"{tensor.name} {_whole_shape(tensor)}{meaning}"
            continue
        found.setdefault((ours, tensor.kind), []).append(tensor)
    got = {name for name, kind in found if kind in ("weight", "master")}
    missing = [f"{name} {row.shape}" for name, row in rows.items() if name not in got]
    if unused or missing:
        raise TrainyardError(
            f"the checkpoint is another model's, or the map of names ({names.title}) is another program's.\n"
            f"{_paragraph('theirs that no parameter here is', unused.values(), all_names)}"
            f"{_paragraph('ours that they do not have', missing, all_names)}"
            "Change the run's model, or write a YAML for --names"
        )
    return found


def _paragraph(title: str, names: Collection[str], whole: bool) -> str:
    """One name a line under the title; nothing where there are none."""
    if not names:
        return ""
    told = list(names) if whole else list(names)[:NAMES_TOLD]
    rest = len(names) - len(told)
    lines = [f"{title} ({len(names):,}):", *(f"  {shortened(each)}" for each in told)]
    return "\n".join([*lines, *([f"  and {rest:,} more (--all-names tells them)"] if rest else [])]) + "\n"


def _whole_shape(tensor: ForeignTensor) -> str:
    shards = tensor.shards
    return f"{shards[0].shape}" if len(shards) == 1 else f"{len(shards)} x {shards[0].shape}"


def _check_shapes(
    found: Mapping[tuple[str, str], Sequence[ForeignTensor]], rows: Mapping[str, ParameterRow], config: RunConfig
) -> None:
    wrong = {}
    for (name, _), candidates in found.items():
        for tensor in candidates:
            for part, shard in enumerate(tensor.shards):
                row = rows[name]
                expected = row.own_shape(row.slice_of(part, len(tensor.shards)))
                if tensor.padding_removed and row.cut is not None and row.cut.padded_by is not None:
                    expected = (config.model.vocabulary, *expected[1:])
                if shard.shape not in (expected, (prod(expected),)):
                    wrong[name] = f"{tensor.name} {shard.shape} for {name} {expected}"
    if wrong:
        raise TrainyardError(
            f"shapes differ, theirs for ours of each tensor-parallel rank: {listed(wrong.values())}."
            f"{_vocabulary(found, rows, config)} Change the run's model or data.sequence_length, or import another "
            "checkpoint"
        )


def _vocabulary(
    found: Mapping[tuple[str, str], Sequence[ForeignTensor]], rows: Mapping[str, ParameterRow], config: RunConfig
) -> str:
    """What is to be said of the rows of a table that was padded otherwise."""
    for (name, _), candidates in found.items():
        row, theirs = rows[name], sum(shard.shape[0] for shard in candidates[0].shards)
        if row.cut is not None and row.cut.padded_by is not None and theirs != row.shape[0]:
            key, multiple = row.cut.setting, row.cut.padded_by
            return (
                f" Their table has {theirs} rows; model.{key} {getattr(config.model, key)} padded to a multiple of "
                f"model.{multiple} {getattr(config.model, multiple)} has {row.shape[0]}: padding is part of the model, "
                f"choose a {multiple} that gives their rows."
            )
    return ""


def _state_tensor(
    tensor: ForeignTensor, row: ParameterRow, kind: str, config: RunConfig, names: NameMap, average_replicas: bool
) -> StateTensor:
    count = len(tensor.shards)
    if count > 1 and row.cut_dimension(count) is None:
        return _from_replicas(tensor, row, kind, average_replicas)
    stretches: list[Stretch] = []
    for number, shard in enumerate(tensor.shards):
        box = row.slice_of(number, count)
        stretches += _stretches(shard, shard_parts(row, box, names))
    if tensor.padding_removed:
        held = sum(each.elements for each in stretches)
        stretches.append(Stretch(TensorSlice.whole(row.shape), held, prod(row.shape) - held, _zeros))
    return StateTensor(row.name, kind, row.shape, tensor.dtype, tuple(stretches))


def shard_parts(row: ParameterRow, box: TensorSlice, names: NameMap) -> list[Part]:
    """Where the elements of a rank's box lie in their shard: one part, or several where their order is another.

    Raises:
        TrainyardError: the order of a gated MLP's halves is not known.
    """
    if is_query_key_value(row) and names.stacked_query_key_value:
        return _split(box, 1, (0, 1, 2))
    if is_gated(row):
        if names.value_before_gate is None:
            raise TrainyardError(
                "which half of their gated MLP is activated is not known (BigScience's fork activates the second, "
                "Microsoft's the first, and no saved settings say which it was); write a YAML for --names with "
                "value_before_gate: true or false"
            )
        return _split(box, 0, (1, 0)) if names.value_before_gate else [Part(box, 0)]
    return [Part(box, 0)]


def is_query_key_value(row: ParameterRow) -> bool:
    """Whether it is queries, keys and values in one, a head's together: (head; query, key, value; ...)."""
    return row.fused == 1 and row.shape[1] == 3


def is_gated(row: ParameterRow) -> bool:
    """Whether it is the two halves of a gated MLP, one after the other: (2, features, ...)."""
    return row.fused == 0


def _split(box: TensorSlice, dimension: int, order: Iterable[int]) -> list[Part]:
    """The box in slices along one dimension, which lie one behind the other in this order."""
    parts: list[Part] = []
    offset = 0
    for index in order:
        ranges = tuple((index, index + 1) if axis == dimension else each for axis, each in enumerate(box.box))
        parts.append(Part(TensorSlice(box.global_shape, ranges), offset))
        offset += parts[-1].slice.elements
    return parts


def _stretches(shard: Shard, parts: Sequence[Part]) -> list[Stretch]:
    """A shard's stretches, cut where its parts end."""
    found = []
    for held in shard.stretches:
        for part in parts:
            first = max(held.start, part.offset)
            last = min(held.start + held.elements, part.offset + part.slice.elements)
            if first < last:
                read = _shifted(held.read, first - held.start)
                found.append(Stretch(part.slice, first - part.offset, last - first, read))
    return found


def _shifted(read: Reader, by: int) -> Reader:
    return lambda first, last: read(first + by, last + by)


def _zeros(first: int, last: int) -> Tensor:
    return torch.zeros(last - first)


def _from_replicas(tensor: ForeignTensor, row: ParameterRow, kind: str, average: bool) -> StateTensor:
    """One of the copies that tensor-parallel ranks hold, or the mean of all."""
    whole = TensorSlice.whole(row.shape)
    copies = [
        StateTensor(row.name, kind, row.shape, tensor.dtype, tuple(_stretches(shard, [Part(whole, 0)])))
        for shard in tensor.shards
    ]
    if not average:
        _require_equal_replicas(copies, tensor.name)
        return copies[0]

    def mean(first: int, last: int) -> Tensor:
        return torch.stack([copy.read(first, last).float() for copy in copies]).mean(0)

    return StateTensor(row.name, kind, row.shape, tensor.dtype, (Stretch(whole, 0, whole.elements, mean),))


def _require_equal_replicas(copies: Sequence[StateTensor], name: str) -> None:
    for number, copy in enumerate(copies[1:], start=1):
        difference = largest_difference(copies[0], copy)
        if difference != 0:
            raise TrainyardError(
                f"{copy.kind} of {name} is not the same on tensor-parallel ranks 0 and {number}: it differs by up to "
                f"{difference:.3g}. Where they drifted apart in training, as BLOOM's did, --average-replicas takes "
                "their mean"
            )


def _require_equal(made: Sequence[StateTensor], theirs: Sequence[str]) -> None:
    for other, name in zip(made[1:], theirs[1:], strict=True):
        difference = largest_difference(made[0], other)
        if difference != 0:
            raise TrainyardError(
                f"{theirs[0]} and {name} are both {made[0].name} here, and their {made[0].kind} differs by up to "
                f"{difference:.3g}: their model has two where this run has one; set model.tied_head: false, or map "
                "only one of them and ignore the other"
            )


def largest_difference(first: StateTensor, second: StateTensor) -> float:
    """Largest difference of an element, infinite where one is NaN; in the type of the first."""
    largest = 0.0
    step = first.piece_elements
    for start in range(0, first.elements, step):
        stop = min(start + step, first.elements)
        ours, theirs = first.read(start, stop), second.read(start, stop).to(first.dtype)
        if not torch.equal(ours, theirs):
            difference = (ours.double() - theirs.double()).abs().max().item()
            largest = max(largest, difference if difference > 0 else float("inf"))
    return largest
