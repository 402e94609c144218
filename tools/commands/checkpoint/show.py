"""One checkpoint for people: what its manifest says, and a tree of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_patches.artefacts.chosen import UNNAMED_GROUP, group_of
from megatron_patches.artefacts.folders import TOKENIZER
from megatron_patches.artefacts.manifest import FileRecord
from megatron_patches.artefacts.marks import pin_of, verification_of
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.errors import TrainyardError
from megatron_patches.parameters.row import layer_of, path_of, stack_of
from megatron_patches.run.reading import load_resolved
from megatron_patches.sizes import counted, readable

if TYPE_CHECKING:
    from megatron_patches.checkpoint.offline.view import CheckpointView, TensorLine

FACTS = (
    *("run", "step", "samples", "tokens", "validation_loss", "validation_losses", "best_by", "learning_rate"),
    *("reason", "launch", "layout"),
)
_LABELS = {"validation_losses": "of each group"}
_OF_GROUPS = ("validation_losses", "best_by")


def describe(view: CheckpointView) -> list[tuple[str, str]]:
    """Labels and texts above the tree."""
    manifest, facts = view.manifest, view.manifest.facts
    pinned, verified = pin_of(view.folder), verification_of(view.folder)
    lines = [("checkpoint", str(view.folder)), ("id", manifest.id), ("made", manifest.created)]
    hidden = _OF_GROUPS if group_of(facts) == UNNAMED_GROUP else ()  # of a single group without a name
    shown = [fact for fact in FACTS if fact in facts and fact not in hidden]
    lines += [(_LABELS.get(fact, fact.replace("_", " ")), _text(facts[fact])) for fact in shown]
    lines.append(("content", str(facts.get("content", "full"))))
    lines.append(("size", _size(manifest.files)))
    travelled = [file for file in manifest.files if file.path.startswith(f"{TOKENIZER}/")]
    lines.append(("tokenizer", _size(travelled) if travelled else "not in it: an earlier version wrote it"))
    lines.append(("parents", ", ".join(parent[:12] for parent in manifest.parents)))
    lines += [("pinned", f"{pinned.reason} ({pinned.date})")] if pinned else []
    lines.append(("verified", f"{verified.reason}, {verified.date}" if verified else "not since it was written"))
    return lines


def _size(files: Sequence[FileRecord]) -> str:
    return f"{readable(sum(file.size for file in files))} in {counted(len(files), 'file')}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def as_tree(view: CheckpointView, fold: bool) -> list[str]:
    """Layers, parameters, and of each its kinds; blocks that differ in their numbers alone are one branch."""
    lines = [counted(len({line.name for line in view.tensors}), "parameter")]
    for label, tensors in _layers(view.tensors, _forward_order(view.folder), fold):
        lines.append(f"  {label}")
        for (name, shape), same in groupby(tensors, key=lambda line: (line.name, line.shape)):
            kinds = ", ".join(dict.fromkeys(_kind_text(line) for line in same))
            lines.append(f"    {name}  {list(shape)}  {kinds}")
    return lines


def _kind_text(line: TensorLine) -> str:
    norm = "" if line.norm is None else f" |{line.norm:.4g}|"
    return f"{line.kind} {line.dtype}{norm}"


def _layers(
    lines: Iterable[TensorLine], order: Mapping[str, int], fold: bool
) -> Iterator[tuple[str, list[TensorLine]]]:
    """Each layer's lines, their names without the layer's; neighbours that are alike together.

    With norms no two blocks are alike, so folding looks at shapes and types, and shows the first block's norms.
    """
    layers: dict[str, list[TensorLine]] = {}
    for line in lines:
        layer = layer_of(line.name)
        layers.setdefault(layer, []).append(replace(line, name=line.name.removeprefix(f"{layer}.")))
    ordered = sorted(layers.items(), key=lambda each: _position(each[0], order))
    if not fold:
        yield from ordered
        return
    for _, same in groupby(ordered, key=lambda each: [(line.name, line.kind, line.shape) for line in each[1]]):
        alike = list(same)
        first, last = alike[0][0], alike[-1][0]
        whose = "" if alike[0][1][0].norm is None else f"; norms of {first}"
        yield (first if first == last else f"{first} to {last}, {len(alike)} alike{whose}"), alike[0][1]


def _position(layer: str, order: Mapping[str, int]) -> tuple[int, str, int]:
    """Where a layer stands in the forward pass; where that is not known, blocks by number behind the others."""
    stack = stack_of(layer)
    return order.get(layer, len(order)), stack or "", int(layer.rpartition(".")[2]) if stack else 0


def _forward_order(folder: Path) -> dict[str, int]:
    """Positions of the layers of the model that was saved; nothing where a version with other keys wrote its run."""
    try:
        config = load_resolved(folder / CONFIG)
    except TrainyardError:
        return {}
    return {layer: position for position, layer in enumerate(path_of(config.parameters))}
