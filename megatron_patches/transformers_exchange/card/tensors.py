"""Whether every tensor of a folder is one of a checkpoint, there and back, bit for bit. One parameter at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from megatron_patches.errors import listed
from megatron_patches.foreign.printable import shortened
from megatron_patches.models.interface.transformers_format import FilledTensor, TensorPair, TransformersFormat
from megatron_patches.parameters.row import ParameterRow
from megatron_patches.parameters.torch_dtypes import STORED_NAMES
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.card.card import NotEqual, TensorFigures
from megatron_patches.transformers_exchange.card.folder import StoredTensor, TransformersFolder
from megatron_patches.transformers_exchange.card.source import Source

CHECK = "tensors"


def compare_tensors(
    source: Source, folder: TransformersFolder, format: TransformersFormat, config: RunConfig
) -> TensorFigures:
    """Compares all tensors of both sides, types included.

    Raises:
        NotEqual: one is missing or left over, on either side, or differs; the first is named with its place.
    """
    rows = {row.name: row for row in config.parameters}
    pairs = format.pairs(config.model, config.parameters)
    filled = format.filled(config.model)
    ignored = [name for name in folder.tensors if format.ignored(name)]
    _check_ours(source, rows, pairs)
    _check_theirs(folder, pairs, filled, ignored)
    dtype = source.dtype
    for pair in pairs:
        _compare_pair(source.read(pair.ours), pair, rows[pair.ours], config.model.vocabulary, folder.tensors)
    for each in filled:
        _compared(each.name, folder.tensors[each.name], torch.full(each.shape, each.value, dtype=dtype))
    held = [folder.tensors[name] for name in folder.tensors if name not in ignored]
    return TensorFigures(
        ours=len(pairs),
        theirs=sum(len(pair.theirs) for pair in pairs),
        filled=len(filled),
        ignored=len(ignored),
        elements=sum(each.size for each in held) // dtype.itemsize,
        dtype=STORED_NAMES[dtype],
    )


def _check_ours(source: Source, rows: Mapping[str, ParameterRow], pairs: Sequence[TensorPair]) -> None:
    """Each parameter of the model is in the checkpoint and in one pair."""
    paired = Counter(pair.ours for pair in pairs)
    problems = [
        *(f"{name} is not in the checkpoint" for name in rows if name not in source.weights),
        *(f"{shortened(name)} is in the checkpoint, and no parameter" for name in source.weights if name not in rows),
        *(f"{name} has no counterpart" for name in rows if name not in paired),
        *(f"{name} has two counterparts" for name, count in paired.items() if count > 1),
        *(f"{name}: {source.weights[name].shape} is stored, not {row.shape}" for name, row in rows.items()
          if name in source.weights and source.weights[name].shape != row.shape),
    ]  # fmt: skip
    dtypes = {str(each.dtype).removeprefix("torch.") for each in source.weights.values()}
    if len(dtypes) != 1:
        problems.append(f"its weights are of several types: {', '.join(sorted(dtypes))}")
    if problems:
        raise NotEqual(CHECK, f"of the checkpoint\n{listed(problems)}")


def _check_theirs(
    folder: TransformersFolder, pairs: Sequence[TensorPair], filled: Sequence[FilledTensor], ignored: Sequence[str]
) -> None:
    """Each tensor of the folder is of one pair, filled or ignored, and none is missing."""
    expected = Counter([name for pair in pairs for name in pair.theirs] + [each.name for each in filled])
    problems = [
        *(f"{shortened(name)} is missing" for name in expected if name not in folder.tensors),
        *(f"{shortened(name)} is left over" for name in folder.tensors
          if name not in expected and name not in ignored),
        *(f"{shortened(name)} would hold two parameters" for name, count in expected.items() if count > 1),
    ]  # fmt: skip
    if problems:
        raise NotEqual(CHECK, f"of the folder\n{listed(problems)}")


def _compare_pair(
    ours: Tensor, pair: TensorPair, row: ParameterRow, vocabulary: int, stored: Mapping[str, StoredTensor]
) -> None:
    parts = zip(pair.theirs, pair.split(ours), strict=True)
    read = [_compared(f"{name} from {pair.ours}", stored[name], part) for name, part in parts]
    back = pair.join(read)
    kept = ours[:vocabulary] if row.row_for_each == "vocabulary" else ours
    if (place := first_difference(back, kept)) is not None:
        raise NotEqual(CHECK, f"{pair.ours} from {shortened(', '.join(pair.theirs))} {place}")


def _compared(told: str, stored: StoredTensor, expected: Tensor) -> Tensor:
    """The stored tensor, which is the expected one."""
    if stored.dtype != STORED_NAMES.get(expected.dtype):
        raise NotEqual(CHECK, f"{told} is of type {stored.dtype}, not {STORED_NAMES.get(expected.dtype)}")
    if stored.shape != expected.shape:
        raise NotEqual(CHECK, f"{told} is of shape {stored.shape}, not {tuple(expected.shape)}")
    read = stored.read()
    if (place := first_difference(read, expected)) is not None:
        raise NotEqual(CHECK, f"{told} {place}")
    return read


def first_difference(found: Tensor, expected: Tensor) -> str | None:
    """Where two tensors differ in a bit, their type or their shape, as the end of a sentence; None if nowhere."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        told = f"is {found.dtype} {tuple(found.shape)}, not {expected.dtype} {tuple(expected.shape)}"
        return told.replace("torch.", "")
    bits = {2: torch.int16, 4: torch.int32}[found.element_size()]
    if torch.equal(found.view(bits), expected.view(bits)):
        return None
    other = found.view(bits) != expected.view(bits)
    at = tuple(int(each) for each in other.nonzero()[0])
    return f"differs in {int(other.sum()):,} of {found.numel():,} numbers, first at {list(at)}: " + (
        f"{found[at].item():g}, not {expected[at].item():g}"
    )
