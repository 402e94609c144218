"""What a loss is computed on: validation groups of a run, or a dataset, opened as for training. Torch-free."""

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from data_tools.data_config import ONLY_GROUP, DataConfig
from data_tools.datasets.manifest import read_dataset_manifest
from data_tools.opened_sources import OnPreparation, in_silence
from data_tools.run_data import RunData
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.source import SampleSource
from data_tools.sources_config import SourceConfig, ValidationGroupConfig
from data_tools.text.special_tokens import SpecialTokens
from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
from data_tools.validation_group import ValidationGroup
from megatron_patches.artefacts.evaluations.result import DataFile
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.checkout import CHECKOUT
from megatron_patches.checkpoint.tokenizer_files.own import own_tokenizer_files
from megatron_patches.errors import Missing, Refused, TrainyardError, refuse
from megatron_patches.evaluation.tasks.task import LossTask
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.generation.evaluated_run import at_length
from megatron_patches.objectives.objective_config import CausalConfig, LossTerms
from megatron_patches.run.config import RunConfig
from megatron_patches.run.run_directory import text_preparation
from megatron_patches.sizes import counted

_DATASET = "dataset"
"""name of the group that a dataset's files make"""
_VERSION = 1
"""of what a definition is made of"""


@dataclass(frozen=True)
class LossGroup:
    """Samples with a loss of their own."""

    group: ValidationGroup
    count: int
    """samples that are read, the first ones"""

    @property
    def name(self) -> str:
        """Of the validation group."""
        return self.group.name

    @cached_property
    def samples(self) -> SampleSource:
        """By number."""
        return self.group.samples

    def definition(self) -> dict[str, Any]:
        """Which documents these are, exactly and on any machine."""
        pairs = zip(self.group.sources, self.group.parts, strict=True)
        documents = [
            [[shard.id, selection.name] for shard, selection in zip(source.shards, part.selections, strict=True)]
            for source, part in pairs
        ]
        return {"name": self.name, "weights": list(self.group.weights), "documents": documents, "samples": self.count}

    def files(self) -> list[DataFile]:
        """The datasets that they are read from."""
        return [
            DataFile(name=printable(shard.prefix), sha256=_hash_of(shard.prefix), rows=shard.facts.documents)
            for source in self.group.sources
            for shard in source.shards
        ]


@dataclass(frozen=True)
class LossData:
    """Everything that a loss task reads."""

    config: RunConfig
    """of the checkpoint"""
    lengths: SampleLengths
    groups: list[LossGroup]
    has_parts: bool
    """whether each group's loss is told for itself"""
    end_of_document: int | None
    """what the objective needs to see where documents end"""
    special: SpecialTokens | None = None
    """of the checkpoint's tokenizer, where the objective reads them"""

    def definition(self) -> str:
        """sha256 of everything but the model that decides the loss."""
        return hashlib.sha256(json.dumps(self.decides(), sort_keys=True).encode()).hexdigest()

    def decides(self) -> dict[str, Any]:
        """What is hashed, as JSON."""
        objective = self.config.objective
        # terms that are added in training alone, and where logits are made, which decides no loss
        without_effect = {*(field.name for field in fields(LossTerms)), "masked_logits_only"}
        return {
            "version": _VERSION,
            "objective": objective.model_dump(exclude=without_effect),
            # a prefix is drawn with the run's seed; next tokens are not drawn
            "seed": None if isinstance(objective, CausalConfig) else self.config.training.seed,
            "read": self.lengths.read,
            "samples": _samples(self.config),
            "groups": [group.definition() for group in self.groups],
            **({"special": self.special.definition()} if self.special else {}),
        }

    def files(self) -> list[DataFile]:
        """The datasets that are read, each once."""
        return list({file.name: file for group in self.groups for file in group.files()}.values())


def open_loss_data(
    config: RunConfig, checkpoint: Path, manifest: Manifest, task: LossTask, prepare: OnPreparation | None = in_silence
) -> LossData:
    """The samples of a task.

    Args:
        config: of the checkpoint; its `evaluation.samples` and `data.sequence_length` hold where the task says nothing,
            and decide which documents of raw text are held out in any case.
        checkpoint: its folder, with the tokenizer that travels in it.
        manifest: of the checkpoint.
        prepare: as `RunData` takes it.

    Raises:
        Refused: the run has no such group; it is not said how many samples are to be read; the data is another than the
            checkpoint was trained with; or a length is none that the model can read.
        TrainyardError: data, or the checkpoint's tokenizer, is missing or damaged.
    """
    wanted = _data_config(config, task)
    wanted = wanted.model_copy(update={"tokenizer": _tokenizer(wanted, checkpoint, manifest)})
    lengths = at_length(config, task.settings.length).lengths
    try:
        data = RunData(wanted, CHECKOUT, config.lengths, config.place_after, prepare, text_preparation(config))
    except TrainyardError as error:
        where = " (or evaluate where the run's data is)" if _is_own(task) else ""
        raise type(error)(f"the data of {shortened(task.label)} cannot be opened: {error}{where}") from None
    if not (task.dataset is not None or data.groups_are_named):
        _refuse_changed(data, config, manifest)
    refuse([*data.vocabulary_problems(config.model.vocabulary), *data.answer_problems()])
    groups = data.groups_at(lengths)
    if not groups:
        raise Refused(
            f"{config.name} does not validate (evaluation), so nothing of its text is held out; name a dataset "
            "(dataset:PREFIX), or perplexity:FILE"
        )
    end_of_document = data.end_of_document(config.document_ends_needed_by)
    found = [LossGroup(group, _count(config, task, group, lengths)) for group in groups]
    has_parts = _is_own(task) and data.groups_are_named and not task.groups
    special = data.special_tokens(config.objective.token_roles)
    return LossData(config, lengths, found, has_parts, end_of_document, special)


def _samples(config: RunConfig) -> dict[str, Any]:
    """The section; what is not wrapped is what it was before there was the key, so that results stay comparable."""
    settings = config.data.samples.model_dump()
    return {key: value for key, value in settings.items() if key != "wrapped" or value}


def _is_own(task: LossTask) -> bool:
    return task.dataset is None


def _data_config(config: RunConfig, task: LossTask) -> DataConfig:
    """The part of a run's data that a task reads: training data that no group needs may lie elsewhere."""
    data = config.data
    alone: dict[str, Any] = {"path": None, "text": None, "changes": []}
    if task.dataset is not None:
        source = SourceConfig(name=_DATASET, path=str(Path(task.dataset).absolute()))
        group = ValidationGroupConfig(name=_DATASET, sources=[source])
        return data.model_copy(update={**alone, "sources": [source], "validation": [group]})
    _refuse_unknown(data, task)
    if not data.validates:
        raise Refused(
            f"{config.name} has nothing to validate on: data.split {data.split} leaves it no documents, and "
            "data.validation names no group; name a dataset (dataset:PREFIX), or perplexity:FILE"
        )
    groups = [group for group in data.validation if not task.groups or group.name in task.groups]
    if any(source.text is not None for group in groups for source in group.sources) or not groups:
        return data.model_copy(update={"validation": groups})
    return data.model_copy(update={**alone, "sources": groups[0].sources, "validation": groups})


def _refuse_unknown(data: DataConfig, task: LossTask) -> None:
    known = data.group_names
    for name in task.groups:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[:3]
            told = "nearest" if len(near) < len(known) else "there are" if len(known) > 1 else "there is"
            raise Refused(f"{shortened(name, 40)} is no validation group of the run; {told} {', '.join(near)}")


def _count(config: RunConfig, task: LossTask, group: ValidationGroup, lengths: SampleLengths) -> int:
    """Samples that are read of a group; of a length or a limit of its own no more than there are."""
    there = len(group.samples)
    limit = task.settings.limit
    of_run = config.evaluation.samples if config.evaluation and _is_own(task) else None
    if _is_own(task) and limit is None and of_run is None:
        raise Refused(
            f"{config.name} does not say how many samples a validation reads: it has no evaluation.samples; say how "
            "many (--limit N, or evaluation)"
        )
    wanted = limit or of_run or there
    as_asked = limit is None and task.settings.length is None
    if there == 0 or (as_asked and wanted > there):
        raise Refused(
            f"{_told(task, group)} has {counted(there, 'sample')} of {lengths.read:,} tokens, of {group.tokens:,} in "
            f"{counted(group.documents, 'document')}, where {max(1, wanted):,} are to be read; "
            + ("lower the limit (--limit), " if there else "")
            + "give a smaller length (--length), or more documents"
        )
    return min(wanted, there)


def _told(task: LossTask, group: ValidationGroup) -> str:
    return f"dataset {printable(task.dataset)}" if task.dataset is not None else f"validation group {group.name}"


def _tokenizer(data: DataConfig, checkpoint: Path, manifest: Manifest) -> str:
    """Where the checkpoint's tokenizer lies: as `data.tokenizer` says if that is it still, else in the checkpoint
    itself, or where the inventory knows it. So a checkpoint that was pulled needs no data but its datasets.
    """
    wanted = _identity(manifest).get("tokenizer")
    try:
        there = tokenizer_id(find_tokenizer(CHECKOUT / data.tokenizer), allow_invalid=True)
    except TrainyardError:
        there = None
    if not isinstance(wanted, str) or wanted == there:
        return data.tokenizer
    try:
        files = own_tokenizer_files(checkpoint.absolute(), manifest)
    except Missing as error:
        if there is None:
            raise
        raise Refused(
            f"data.tokenizer {data.tokenizer} is another tokenizer ({there[:12]}) than the checkpoint was trained "
            f"with: {error}"
        ) from None
    return str(files.model.parent if files.of_folder else files.model)


def _identity(manifest: Manifest) -> Mapping[str, Any]:
    """Which data the checkpoint was trained with."""
    identity = manifest.facts.get("identity")
    return identity if isinstance(identity, Mapping) else {}


def _refuse_changed(data: RunData, config: RunConfig, manifest: Manifest) -> None:
    """Other data under a name than a checkpoint was trained with: what is held out now it may have been trained on."""
    saved = _identity(manifest)
    of_data = {**data.identity, "data.split": config.data.split, "data.split_by": config.data.split_by}
    for key in ("data.split", "data.split_by"):
        if saved.get(key, of_data[key]) != of_data[key]:
            raise Refused(
                f"{key} is {shortened(saved[key], 40)} in the checkpoint and {of_data[key]} now, so that the group "
                f"{ONLY_GROUP} would hold what the run was trained on; leave it as it was"
            )
    names = ["dataset", *(f"source {each.name}" for each in config.data.first_sources)]
    for name in names:
        if name in saved and name in of_data and saved[name] != of_data[name]:
            raise Refused(
                f"the documents of {'data.path' if name == 'dataset' else name} are others than {config.name} was "
                f"trained with, so that the group {ONLY_GROUP} may hold what it has seen; restore the dataset (tools/"
                "inventory where), or name files that it has not seen (dataset:PREFIX)"
            )


def _hash_of(prefix: Path) -> str | None:
    manifest, _ = read_dataset_manifest(prefix, allow_invalid=True)
    return next((file.sha256 for file in manifest.files if file.path.endswith(".bin")), None)
