"""Writing a checkpoint as DeepSpeed's universal one, which its engines load under any layout of theirs.

OUTPUT/latest_universal                          names the folder beside it
OUTPUT/global_stepN_universal/mp_rank_00_model_states.pt     how far training was
OUTPUT/global_stepN_universal/zero/optimizer_state.pt        what groups of parameters have in common: nothing
OUTPUT/global_stepN_universal/zero/<their name>/             fp32.pt, each moment, step.pt
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_patches.artefacts.descent import ORIGIN, origin_of
from megatron_patches.artefacts.manifest import (
    MANIFEST,
    FileRecord,
    Manifest,
    build_manifest,
    read_manifest,
    record_file,
    write_manifest,
)
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.atomic_files import fsync_folder, temporary_path
from megatron_patches.checkpoint.files.state_tensor import PIECE_ELEMENTS, StateTensor
from megatron_patches.checkpoint.offline.stored_tensors import stored_tensors
from megatron_patches.errors import TrainyardError
from megatron_patches.exchange.deepspeed_folder import listed
from megatron_patches.exchange.matching import is_gated, is_query_key_value, shard_parts
from megatron_patches.parameters.name_map import NameMap
from megatron_patches.parameters.row import ParameterRow
from megatron_patches.parameters.tensor_slice import TensorSlice
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved

State = dict[tuple[str, str], StateTensor]


def export_universal(source: Path, target: Path, names: NameMap) -> Manifest:
    """Export a whole checkpoint into a new folder `target`, with a manifest.

    One parameter at a time is put together, a large one in a file rather than in memory.

    Raises:
        TrainyardError: the folder exists, a name has no counterpart, or the optimizer's state is not elementwise.
            Nothing is left behind then.
    """
    if target.exists():
        raise TrainyardError(f"{target} exists; name another folder, or move it away")
    config = load_resolved(source / CONFIG)
    saved = read_manifest(source / MANIFEST)
    state: State = {(tensor.name, tensor.kind): tensor for tensor in stored_tensors(source, saved)}
    theirs = _their_names(config, names)
    _refuse_whole_matrix_state(state, config)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_path(target)
    folder = partial / f"global_step{saved.facts['step']}_universal"
    (folder / "zero").mkdir(parents=True)
    try:
        for row, name in theirs.items():
            _write_parameter(folder / "zero" / name, row, state, config, names, saved.facts)
        _write_common(folder, saved.facts, len(theirs))
        (partial / "latest_universal").write_text(folder.name)
        files = [_finished(path, partial) for path in sorted(partial.rglob("*")) if path.is_file()]
        facts = {"format": "deepspeed universal", "names": names.title, ORIGIN: origin_of(saved)} | {
            key: saved.facts[key] for key in ("run", "step", "samples", "tokens", "optimizer_steps")
        }
        manifest = build_manifest("export", files=files, facts=facts, parents=(saved.id,))
        write_manifest(partial / MANIFEST, manifest)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    fsync_folder(target.parent)
    return manifest


def _finished(path: Path, folder: Path) -> FileRecord:
    """The record of a file that torch.save wrote, once it is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return record_file(path, folder)


def _their_names(config: RunConfig, names: NameMap) -> dict[ParameterRow, str]:
    found = {row: names.to_theirs(row.name) for row in config.parameters}
    missing = [row.name for row, name in found.items() if name is None]
    if missing:
        raise TrainyardError(
            f"the map of names ({names.title}) has no counterpart of {listed(missing)}; add rules to a YAML for --names"
        )
    named = {row: name for row, name in found.items() if name is not None}
    if len(set(named.values())) < len(named):
        raise TrainyardError(f"the map of names ({names.title}) gives two parameters the same name; correct its rules")
    return named


def _refuse_whole_matrix_state(state: State, config: RunConfig) -> None:
    moments = {name: each for (name, kind), each in state.items() if kind not in ("weight", "master")}
    whole = config.optimizer.name == "muon" or any(
        each.shape != state[name, "weight"].shape for name, each in moments.items()
    )
    if moments and whole:
        raise TrainyardError(
            f"the state of optimizer.name {config.optimizer.name} is none that DeepSpeed's engines continue from; "
            "make a checkpoint of weights with tools/reshape --weights-only and export that"
        )


def _write_parameter(
    folder: Path, row: ParameterRow, state: State, config: RunConfig, names: NameMap, facts: Mapping[str, Any]
) -> None:
    folder.mkdir(parents=True)
    kinds = [kind for name, kind in state if name == row.name and kind not in ("weight", "master")]
    exact = state.get((row.name, "master")) or state[row.name, "weight"]
    for kind, tensor in [("fp32", exact), *((kind, state[row.name, kind]) for kind in kinds)]:
        with _AssembledParameter(folder / f"{kind}.values", tensor, row, names) as values:
            torch.save({"param": values} | _cut(row, names), folder / f"{kind}.pt")
    if kinds and facts["optimizer_steps"]:
        torch.save(torch.tensor(float(facts["optimizer_steps"])), folder / "step.pt")


def _cut(row: ParameterRow, names: NameMap) -> dict[str, int]:
    """How DeepSpeed's engines are to cut it for tensor-parallel ranks; what has their own shape they take whole."""
    dimension = row.cut_dimension(1)
    if dimension is None:
        return {}
    last_of_matrix = dimension == len(row.shape) - 1 and row.matrix
    if is_gated(row):
        return {"cat_dim": 0, "param_n_sub_params": 2}
    if names.stacked_query_key_value and is_query_key_value(row):
        return {"cat_dim": 0, "param_n_sub_params": 3}
    return {"cat_dim": 1 if last_of_matrix else 0}


class _AssembledParameter:
    """A whole tensor in fp32, in their order and shape; a large one is mapped from a file that goes away again."""

    def __init__(self, path: Path, tensor: StateTensor, row: ParameterRow, names: NameMap) -> None:
        self._path, self._tensor, self._row, self._names = path, tensor, row, names

    def __enter__(self) -> Tensor:
        elements = self._tensor.elements
        if elements <= PIECE_ELEMENTS:
            values = torch.empty(elements)
        else:
            values = torch.from_file(str(self._path), shared=True, size=elements, dtype=torch.float32)
        for into, start, length in _runs(self._row, self._names):
            step = self._tensor.piece_elements
            for first in range(0, length, step):
                count = min(step, length - first)
                values[into + first : into + first + count] = self._tensor.read(start + first, start + first + count)
        return values.view(self._row.own_shape(TensorSlice.whole(self._row.shape)))

    def __exit__(self, *error: object) -> None:
        self._path.unlink(missing_ok=True)


def _runs(row: ParameterRow, names: NameMap) -> Iterator[tuple[int, int, int]]:
    """(first element of theirs, first of ours, how many): elements that follow each other in both orders."""
    whole = TensorSlice.whole(row.shape)
    parts = shard_parts(row, whole, names)
    if len(parts) == 1:
        yield 0, 0, whole.elements
        return
    for part in parts:
        (dimension,) = [axis for axis, (low, high) in enumerate(part.slice.box) if (low, high) != (0, row.shape[axis])]
        index = part.slice.box[dimension][0]
        inner = TensorSlice.whole(row.shape[dimension + 1 :]).elements
        for outer in range(TensorSlice.whole(row.shape[:dimension]).elements):
            yield part.offset + outer * inner, (outer * row.shape[dimension] + index) * inner, inner


def _write_common(folder: Path, facts: Mapping[str, Any], parameters: int) -> None:
    """What a loading engine asks for beside the parameters.

    It pairs its groups of parameters with those saved, leaves groups without a partner unloaded, and takes every
    setting that is saved over its own: so there are as many as there can be, and they say nothing.
    """
    version = metadata.version("deepspeed")
    groups: list[dict[str, Any]] = [{"params": []} for _ in range(parameters)]
    torch.save({"param_groups": groups, "ds_version": version}, folder / "zero" / "optimizer_state.pt")
    state = {
        "module": {},
        "lr_scheduler": None,
        "dp_world_size": 1,
        "mp_world_size": 1,
        "global_steps": facts["step"],
        "global_samples": facts["samples"],
        "skipped_steps": 0,
        "iteration": facts["step"],
        "consumed_samples": facts["samples"],
        "consumed_tokens": facts["tokens"],
        "ds_version": version,
        "universal_checkpoint_info": {"universal_checkpoint_version": 0.4},
    }
    torch.save(state, folder / "mp_rank_00_model_states.pt")
