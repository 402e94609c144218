"""The model in a folder of transformers, before any of its weights is read: which it is, and whether it is whole.
Torch-free until tensors' shapes are compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.artefacts.manifest import MANIFEST
from megatron_patches.configuration.model_section import ModelSection
from megatron_patches.dtypes import PRECISION_OF_STORED
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.models.interface.transformers_format import TensorPair, TransformersFormat
from megatron_patches.parameters.row import ParameterRow
from megatron_patches.transformers_exchange.card.folder import (
    CONFIG_FILE,
    StoredTensor,
    TransformersFolder,
    open_folder,
)
from megatron_patches.transformers_exchange.card.tied_copies import without_tied_copy
from megatron_patches.transformers_exchange.choice import format_of
from megatron_patches.transformers_exchange.same_model import section_of

ADAPTER_FILE = "adapter_config.json"
_TOLD = 5


@dataclass(frozen=True)
class ForeignModel:
    """What a folder holds, as far as its configuration and the headers of its files tell."""

    folder: TransformersFolder
    format: TransformersFormat
    model: ModelSection
    """that it stands for, every default filled in"""
    positions: int | None
    """rows of its table of positions, or the length that it was trained for"""


def is_transformers_folder(path: Path) -> bool:
    """Whether a folder is one of transformers, whole or not; an export of ours is one too, a checkpoint is not."""
    if not any((path / name).is_file() for name in (CONFIG_FILE, ADAPTER_FILE)):
        return False
    try:
        return parse_object(read_bounded(path / MANIFEST), MANIFEST).get("kind") != "checkpoint"
    except TrainyardError:
        return True


def read_foreign_model(path: Path) -> ForeignModel:
    """Open a folder and find the model that its `config.json` asks for.

    Raises:
        Missing: it, `config.json` or a file of weights is not there.
        Refused: it is an adapter, is quantized, needs code of its own, holds pickles alone, or asks for a model that
            none of ours is.
        Damaged: a file is not what its header says.
    """
    shown = printable(path)
    if (path / ADAPTER_FILE).is_file():
        raise Refused(
            f"{shown} is an adapter ({ADAPTER_FILE}), no whole model: merge it into its base model first (peft's "
            "merge_and_unload, then save_pretrained)"
        )
    folder = open_folder(path)
    if folder.config.get("quantization_config") is not None:
        raise Refused(
            f"{shown} is quantized (quantization_config in {CONFIG_FILE}): its numbers are codes; import the model "
            "that it was made from"
        )
    model_type = folder.config.get("model_type")
    if not isinstance(model_type, str):
        raise Refused(f"{shown}: {CONFIG_FILE} names no model_type, so its architecture is not known; add it")
    _, format = format_of(model_type)
    read = format.read(folder.config)
    return ForeignModel(folder, format, section_of(read), read.positions)


def match_tensors(
    found: ForeignModel, rows: Sequence[ParameterRow]
) -> tuple[dict[str, StoredTensor], list[TensorPair]]:
    """The folder's tensors beside ours, strictly: every one of theirs is used, every one of ours is found.

    Args:
        rows: of the folder's own model, as many of vocabulary and positions as it has.

    Returns:
        The folder's tensors by the names that the pairs have, and the pairs.

    Raises:
        Refused: names, shapes or types are not those of its `config.json`; they are told. Or a tied head is stored
            too, and differs.
    """
    pairs = found.format.pairs(found.model, rows)
    shapes = _expected_shapes(pairs, rows) | {each.name: each.shape for each in found.format.filled(found.model)}
    named = without_tied_copy(found.folder.by(found.format.current_name), found.format, pairs).tensors
    tensors = {name: each for name, each in named.items() if not found.format.ignored(name)}
    problems = [*_name_problems(shapes.keys(), tensors.keys()), *_shape_problems(shapes, tensors)]
    if problems:
        raise Refused(
            f"{printable(found.folder.path)} does not hold the weights of its {CONFIG_FILE}: {'; '.join(problems)}. "
            f"Save the whole model again ({found.format.class_name}, by save_pretrained)"
        )
    return tensors, pairs


def _expected_shapes(pairs: Iterable[TensorPair], rows: Sequence[ParameterRow]) -> dict[str, tuple[int, ...]]:
    """Shapes of their tensors: what splitting ours would give."""
    import torch

    found: dict[str, tuple[int, ...]] = {}
    shapes = {row.name: row.shape for row in rows}
    for pair in pairs:
        parts = pair.split(torch.empty(shapes[pair.ours], device="meta"))
        found |= {name: tuple(part.shape) for name, part in zip(pair.theirs, parts, strict=True)}
    return found


def _name_problems(wanted: Iterable[str], there: Iterable[str]) -> list[str]:
    missing, extra = sorted(set(wanted) - set(there)), sorted(set(there) - set(wanted))
    told = (("it lacks", missing), ("it has, and its model has not,", extra))
    return [f"{what} {_listed(names)}" for what, names in told if names]


def _shape_problems(wanted: Mapping[str, tuple[int, ...]], there: Mapping[str, StoredTensor]) -> list[str]:
    found = []
    for name in wanted.keys() & there.keys():
        tensor = there[name]
        if tensor.shape != wanted[name]:
            found.append(f"{printable(name)} has shape {_size(tensor.shape)}, not {_size(wanted[name])}")
        elif tensor.dtype not in PRECISION_OF_STORED:
            kinds = ", ".join(PRECISION_OF_STORED)
            found.append(f"{printable(name)} has type {shortened(tensor.dtype, 20)}, and weights are {kinds}")
    dtypes = sorted({there[name].dtype for name in wanted.keys() & there.keys()})
    if len(dtypes) > 1 and not found:
        found.append(f"its weights are of several types ({', '.join(dtypes)}), and have one here")
    more = [f"and {len(found) - _TOLD:,} more like these"] if len(found) > _TOLD else []
    return [*sorted(found)[:_TOLD], *more]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _TOLD:,} more" if len(names) > _TOLD else ""
    return f"{', '.join(printable(each) for each in names[:_TOLD])}{more}"


def _size(shape: Sequence[int]) -> str:
    return " x ".join(f"{each:,}" for each in shape) or "of one number"
