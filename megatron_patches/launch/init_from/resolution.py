"""The checkpoint that a run's `init_from` names: found, looked at, and compared with the run. Torch-free."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.run_data import RunData
from megatron_patches.artefacts.folders import inspect
from megatron_patches.artefacts.foreign_formats.formats import find_checkpoints
from megatron_patches.artefacts.manifest import MANIFEST, Manifest
from megatron_patches.artefacts.marks import damage_of, is_damaged
from megatron_patches.artefacts.run_folder import CONFIG
from megatron_patches.checkpoint.files.safetensors_header import BadHeader
from megatron_patches.checkpoint.files.stored_files import read_header
from megatron_patches.checkpoint.resume_check import SavedStep
from megatron_patches.checkpoint.starting_point import INITIAL, InitialWeights, Vocabularies, fit_weights
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError, refuse
from megatron_patches.foreign.files import is_folder
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.launch.init_from.inherited_faults import fault_problems
from megatron_patches.launch.init_from.named_checkpoint import Found, find_checkpoint
from megatron_patches.launch.init_from.token_ids import vocabularies_of
from megatron_patches.run.config import RunConfig
from megatron_patches.transformers_exchange.foreign_model import is_transformers_folder
from megatron_patches.transformers_exchange.import_plan import ImportPlan, plan_import
from megatron_patches.transformers_exchange.kept_imports import earlier_import

_PASSED_OVER, _MISFITS = 3, 4
"""of each the first are told"""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FETCH = (
    "hf download {0} --local-dir FOLDER; a run of ours that was sent there: tools/sync-to-hub pull RUN --from hf://{0}"
)


@dataclass(frozen=True)
class StartingPoint:
    """What a run begins from, and what there is to say of it."""

    weights: InitialWeights
    lines: list[str]
    """why this one, what was passed over, of which tables not all rows are taken, how its model's settings differ"""
    pending: ImportPlan | None = None
    """a folder of transformers that the launch is to import first: then `weights` have no id yet"""


def find_starting_point(named: str, config: RunConfig, data: RunData) -> StartingPoint:
    """Find what `init_from` names, and look whether the run can begin from it.

    Raises:
        Missing: there is no such run, checkpoint or folder; the nearest step is named.
        Damaged: it is not whole as far as names, sizes and headers tell, or was found damaged.
        Refused: it must not be used, is no checkpoint of ours, or does not fit the run; every misfit is told.
    """
    try:
        return _resolve(named, config, data)
    except TrainyardError as error:
        raise type(error)(f"init_from {shortened(named)}: {error}") from None


def _resolve(named: str, config: RunConfig, data: RunData) -> StartingPoint:
    found = find_checkpoint(named, config)
    if is_transformers_folder(found.folder):
        return _of_transformers(named, found.folder, config, data)
    return _of_checkpoint(named, found, config, data)


def _of_checkpoint(named: str, found: Found, config: RunConfig, data: RunData) -> StartingPoint:
    manifest = _usable(found.folder, config, named)
    refuse(fault_problems(manifest, config.data.allow_invalid))
    return _fitting(named, found, manifest, config, data)


def _of_transformers(named: str, folder: Path, config: RunConfig, data: RunData) -> StartingPoint:
    """What an earlier launch imported from the same files, or what this one is to import."""
    plan = plan_import(folder, config, data)
    if plan.known is not None:
        refuse(fault_problems(plan.known, config.data.allow_invalid))
    earlier = earlier_import(plan, config)
    if earlier is not None:
        why = f"imported from {printable(folder)} by an earlier launch"
        return _of_checkpoint(named, Found(earlier, why), config, data)
    before = min(plan.tokenizer_vocabulary, plan.config.model.vocabulary)
    vocabularies = Vocabularies(before, min(data.tokenizer_vocabulary, config.model.vocabulary), plan.fresh)
    shapes = {row.name: row.shape for row in plan.config.parameters}
    fit = fit_weights(config.parameters, shapes, vocabularies)
    if fit.problems:
        raise _misfit(printable(folder), fit.problems, f"tools/import-hf {printable(folder)} --show")
    weights = InitialWeights(named, config.name, 0, "", "", fit.rows)
    line = f"{plan.described}; it is imported, with a card, before the ranks start"
    return StartingPoint(weights, [line, *fit.told], plan)


def _fitting(named: str, found: Found, manifest: Manifest, config: RunConfig, data: RunData) -> StartingPoint:
    step, run = whole_of(manifest.facts.get("step")), manifest.facts.get("run")
    if step is None or not isinstance(run, str):
        raise Damaged(f"{found.folder / MANIFEST} does not say of which run and step it is")
    vocabularies = vocabularies_of(found.folder, manifest, config, data)
    fit = fit_weights(config.parameters, _stored_shapes(found.folder, manifest), vocabularies)
    settings = _other_settings(manifest, config)
    if fit.problems:
        raise _misfit(f"{run}@{step}", fit.problems, str(found.folder / CONFIG), settings)
    start = InitialWeights(named, run, step, manifest.id, str(found.folder), fit.rows)
    lines = [f"{_title(manifest, run, step)} ({manifest.id[:12]}), {found.why}; {found.folder}"]
    lines += [f"passed over: {each}" for each in found.passed_over[:_PASSED_OVER]]
    if len(found.passed_over) > _PASSED_OVER:
        lines.append(f"passed over: {len(found.passed_over) - _PASSED_OVER} more")
    return StartingPoint(start, [*lines, *fit.told, *settings])


def _misfit(whose: str, problems: Sequence[str], settings_in: str, settings: Sequence[str] = ()) -> Refused:
    more = len(problems) - _MISFITS
    told = [*problems[:_MISFITS], *([f"and {more} more like these"] if more > 0 else []), *settings]
    return Refused(
        f"the weights of {whose} do not fit this model: {'; '.join(told)}. Make the model's settings theirs "
        f"({settings_in}), or name another checkpoint"
    )


def _title(manifest: Manifest, run: str, step: int) -> str:
    return f"{printable(run)}@{step}{'/weights' if manifest.facts.get('content') == 'weights' else ''}"


def _usable(folder: Path, config: RunConfig, named: str) -> Manifest:
    """The manifest of a checkpoint of ours that is whole as far as it can be seen."""
    if not is_folder(folder) or not (folder / MANIFEST).is_file():
        raise _not_ours(folder, config, named)
    inspection = inspect(folder, config.data.allow_invalid)
    if inspection.manifest is None or inspection.problems:
        told = "; ".join(inspection.problems[:_PASSED_OVER])
        kind = Refused if inspection.refused or _is_of_another_kind(inspection.manifest) else Damaged
        raise kind(f"{told}; name another checkpoint" if kind is Damaged else told)
    if is_damaged(folder):
        mark = damage_of(folder)
        raise Damaged(
            f"{folder} was found damaged when it was read last ({shortened(mark.reason if mark else '', 400)}); "
            f"restore it from a copy and look again (tools/checkpoint verify {printable(folder)}), or name another"
        )
    return inspection.manifest


def _is_of_another_kind(manifest: Manifest | None) -> bool:
    return manifest is not None and manifest.kind != "checkpoint"


def _not_ours(folder: Path, config: RunConfig, named: str) -> TrainyardError:
    if not folder.exists():
        of_hub = f". A model of the Hugging Face hub is fetched first: {_FETCH.format(named)}"
        return Missing(
            f"{printable(folder)} does not exist; name RUN@STEP, RUN@best, RUN@gold, RUN, the folder of a checkpoint, "
            f"or a transformers folder{of_hub if _HUB_NAME.fullmatch(named) else ''}"
        )
    try:
        formats = {each.format for each in find_checkpoints(folder)[0]}
    except TrainyardError:  # nothing that any of them would be: said below
        formats = set()
    of = f"a checkpoint of another program ({', '.join(sorted(formats))})" if formats else "no checkpoint of ours"
    return Refused(
        f"{printable(folder)} is {of}: it has no {MANIFEST}. What DeepSpeed or Megatron-DeepSpeed wrote is imported "
        f"first: tools/import-checkpoint {printable(folder)} {config.name} --weights-only, then init_from: "
        f"{config.name}@0/weights"
    )


def _stored_shapes(folder: Path, manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights, from the headers of their files."""
    found: dict[str, tuple[int, ...]] = {}
    for record in manifest.files:
        if record.path.startswith("weights-") and record.path.endswith(".safetensors"):
            try:
                found |= {piece.name: piece.slice.global_shape for piece in read_header(folder / record.path)}
            except (BadHeader, OSError) as error:
                raise Damaged(f"{folder / record.path}: {shortened(error)}; restore it from a copy") from None
    return found


def _other_settings(manifest: Manifest, config: RunConfig) -> list[str]:
    """Settings of the model that shapes do not show: the weights were trained with others."""
    identity = manifest.facts.get("identity")
    saved: Mapping[str, Any] = identity if isinstance(identity, dict) else {}
    found = [
        f"{key} {_shown(saved[f'model.{key}'])} -> {_shown(value)}"
        for key, value in config.model.model_dump().items()
        if f"model.{key}" in saved and saved[f"model.{key}"] != value
    ]
    return [f"model settings that differ: {'; '.join(found)}"] if found else []


def _shown(value: Any) -> str:
    return "null" if value is None else shortened(str(value).lower() if isinstance(value, bool) else value, 60)


def without_effect(newest: SavedStep, config: RunConfig, data: RunData) -> Iterator[str]:
    """`init_from` of a run that goes on from its own checkpoint, where it is not what the run began from."""
    fact = newest.manifest.facts.get(INITIAL)
    began = fact if isinstance(fact, dict) else {}
    before, now = began.get("named"), config.init_from
    if before == now:
        return
    if before is None:
        yield (
            f"init_from is {shortened(now)}, which would do nothing: {config.name} goes on from {newest.folder}, and "
            "did not begin from another run's weights. Remove the key, or start a new run (tools/runs new)"
        )
        return
    reason = ""
    try:
        if now is not None and _resolve(now, config, data).weights.id == began.get("id"):
            return  # said otherwise, and the same
    except TrainyardError as error:
        reason = f" ({error})"
    yield (
        f"init_from is {_shown(now)} now{reason}, which would do nothing: {config.name} began from {_shown(before)} "
        f"({shortened(str(began.get('id'))[:12], 12)}), and goes on from {newest.folder}. Restore it, or start a new "
        "run (tools/runs new)"
    )
