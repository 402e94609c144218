"""The data of a run, checked before anything is launched and opened again by every rank."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.data_config import ONLY_GROUP, ONLY_SOURCE, DataConfig
from data_tools.data_plan import DataPlan, GroupPlan, SourcePlan, describe_change
from data_tools.datasets.manifest import DatasetFacts, TokenizerFacts
from data_tools.opened_sources import OnPreparation, OpenedSource, Shard, Shards, in_silence, prefixes_of
from data_tools.plans.samples_config import FilteredSection
from data_tools.samples.blend import PERIOD, whole_weights
from data_tools.samples.blended import BlendStages, NamedSource, Stage, TrainingSamples, ValidationSamples
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.skipping import SkippedSamples
from data_tools.samples.source import SampleSource
from data_tools.source_parts import SourcePart, told_removed
from data_tools.sources_config import SourceConfig
from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
from megatron_patches.errors import TrainyardError, refuse
from megatron_patches.sizes import counted

ADOPTED_DOCUMENTS_LOOKED_AT = 100  # evenly over the file; each costs one read of a page


@dataclass(frozen=True)
class ValidationGroup:
    """What is validated on together."""

    name: str
    weights: Sequence[float]
    sources: Sequence[OpenedSource]
    parts: Sequence[SourcePart]
    """documents of each source"""

    @cached_property
    def samples(self) -> SampleSource:
        """Of all sources, in proportion to their weights."""
        if len(self.parts) == 1:
            return self.parts[0].samples
        return ValidationSamples([part.samples for part in self.parts], whole_weights(self.weights))

    @property
    def tokens(self) -> int:
        """Of its documents."""
        return sum(part.tokens for part in self.parts)

    @property
    def told_left_out(self) -> str:
        """Texts that were left out of its samples, and by what, as part of a sentence; empty where none were."""
        found: Counter[str] = Counter()
        for part in self.parts:
            found.update(part.cutting.removed if part.cutting else {})
        return f"; left out: {told_removed(found)}" if found else ""

    @property
    def documents(self) -> int:
        """How many it has."""
        return sum(part.documents for part in self.parts)


class RunData:
    """Opens what the `data:` section names: the datasets, their manifests, and the samples of each source.

    Args:
        checkout: folder that relative paths start from.
        lengths: of the samples that the run's objective reads.
        place_after: the place in the run's order of samples that is reached after a step; needed where `data.changes`
            has any.
        prepare: told of what is made first where it is not there yet, such as plans of samples; None makes nothing.

    Raises:
        TrainyardError: datasets or the tokenizer are missing, damaged, marked invalid, or do not belong together.
    """

    def __init__(
        self,
        config: DataConfig,
        checkout: Path,
        lengths: SampleLengths,
        place_after: Callable[[int], int] | None = None,
        prepare: OnPreparation | None = in_silence,
    ) -> None:
        self._config = config
        self._lengths = lengths
        self._checkout = checkout
        self._prepare = prepare
        self._shards = Shards(config.allow_invalid)
        self.sources = [self._open(source) for source in config.all_sources]
        self._opened_groups = [[self._open(source) for source in group.sources] for group in config.validation]
        self.tokenizer_id = tokenizer_id(find_tokenizer(checkout / config.tokenizer), config.allow_invalid)
        for shard in self._shards.all():
            self._check_tokenizer(shard)
        self.stages = self._stages(place_after)

    def _open(self, source: SourceConfig) -> OpenedSource:
        shards = [self._shards.open(prefix) for prefix in prefixes_of(source, self._checkout)]
        tokenizer = self._checkout / self._config.tokenizer
        return OpenedSource(source, shards, self._config, self._lengths, tokenizer, self._prepare)

    def _check_tokenizer(self, shard: Shard) -> None:
        theirs = shard.facts.tokenizer
        if self.tokenizer_id != theirs.id:
            raise TrainyardError(
                f"dataset {shard.prefix} was made with tokenizer {theirs.name} ({theirs.id[:12]}), data.tokenizer "
                f"{self._config.tokenizer} is another one ({self.tokenizer_id[:12]}); name the dataset's own, or run "
                "tools/preprocess with this one"
            )

    def _stages(self, place_after: Callable[[int], int] | None) -> BlendStages:
        config, position = self._config, {each.name: number for number, each in enumerate(self.sources)}
        stages = [(0, config.first_sources)]
        for change in config.changes:
            assert place_after is not None, "data.changes are at steps: how many samples lie before them is needed"
            stages.append((place_after(change.from_step), change.sources))
        return BlendStages(
            [
                Stage(first, tuple(position[each.name] for each in sources), whole_weights([s.weight for s in sources]))
                for first, sources in stages
            ],
            len(self.sources),
        )

    @property
    def tokenizer_vocabulary(self) -> int:
        """Largest id that the tokenizer can give, plus one."""
        return self._tokenizer.vocab_size

    @property
    def _tokenizer(self) -> TokenizerFacts:
        return self.sources[0].shards[0].facts.tokenizer

    @property
    def dataset_ids(self) -> list[str]:
        """Ids of all datasets that the run is trained on, each once."""
        return list(dict.fromkeys(each for source in self.sources for each in source.dataset_ids))

    @property
    def _is_one(self) -> bool:
        """Whether the run begins with one whole dataset, as `data.path` names it."""
        (first, *others) = self._config.first_sources
        usual = first.name == ONLY_SOURCE and first.range == "0:1"
        return usual and not others and len(self.sources[0].shards) == 1

    @property
    def identity(self) -> dict[str, Any]:
        """What of the datasets decides the order of samples, for the run's identity.

        `dataset` is the id of one whole dataset; else `blend` has the sources at the beginning with their weights, in
        the order in which they are given, by which those that are due together take turns; `source NAME` the documents
        of each source that is read at any time, and `datasets` all ids.
        """
        read_later = self.sources[1:] if self._is_one else self.sources
        found: dict[str, Any] = {f"source {each.name}": each.identity for each in read_later}
        if self._is_one:
            return {"dataset": self.sources[0].shards[0].id, **found}
        first = self._config.first_sources
        weights = whole_weights([each.weight for each in first])
        blend = [[each.name, weight] for each, weight in zip(first, weights, strict=True)]
        return {**found, "blend": blend, "datasets": self.dataset_ids}

    def training(self, seed: int) -> TrainingSamples:
        """The samples of the run by their place in its order."""
        return TrainingSamples(
            [NamedSource(each.name, each.training.samples, tuple(each.dataset_ids)) for each in self.sources],
            self.stages,
            seed,
        )

    @property
    def validation(self) -> Mapping[str, SampleSource]:
        """Sources that the run is validated on, by name."""
        return {group.name: group.samples for group in self.groups}

    @property
    def groups_are_named(self) -> bool:
        """Whether the run names what it is validated on; otherwise it is what `split` leaves."""
        return bool(self._config.validation)

    @property
    def splits_by_hash(self) -> bool:
        """Whether documents that are the same are on the same side of a split."""
        return self._config.split_by == "document_hash"

    @property
    def shards(self) -> Sequence[Shard]:
        """Every dataset, for training or validation, once."""
        return self._shards.all()

    @cached_property
    def groups(self) -> list[ValidationGroup]:
        """What the run is validated on."""
        if not self.groups_are_named:
            first = self._config.first_sources
            opened = self.sources[: len(first)]
            weights = [each.weight for each in first]
            return [ValidationGroup(ONLY_GROUP, weights, opened, [each.validation for each in opened])]
        return [
            ValidationGroup(group.name, [e.weight for e in group.sources], opened, [each.whole for each in opened])
            for group, opened in zip(self._config.validation, self._opened_groups, strict=True)
        ]

    def end_of_document(self, needed_by: Sequence[str]) -> int | None:
        """Id of the token that ends every document; None if nothing needs it.

        Args:
            needed_by: the settings of the run that need it, as people write them.

        Raises:
            TrainyardError: the tokenizer has no such token, or the documents do not end with it.
        """
        refuse(self.end_of_document_problems(needed_by))
        return self._tokenizer.end_of_document if needed_by else None

    def end_of_document_problems(self, needed_by: Sequence[str]) -> Iterator[str]:
        """Why the settings of a run that must see where documents end cannot."""
        if not needed_by:
            return
        need, tokenizer = f"{' and '.join(needed_by)} must see where documents end", self._tokenizer
        if tokenizer.end_of_document is None:
            yield (
                f"{need}, and tokenizer {tokenizer.name} has no end-of-document token; take a tokenizer with one (a "
                "Hugging Face folder names it as eos_token in tokenizer_config.json) and run tools/preprocess with "
                "--append-eod, or leave the setting at its default"
            )
        elif chats := [shard.prefix for shard in self._shards.all() if _ends_within_chats(shard.facts)]:
            yield (
                f"{need}, and in the chats of dataset {chats[0]} the token that ends documents may end each answer, "
                "so that a chat would be cut apart; leave the setting at its default"
            )
        elif (missing := self._without_end_of_document(tokenizer.end_of_document)) is not None:
            yield f"{need}, and {missing}; run tools/preprocess with --append-eod, or leave the setting at its default"

    def _without_end_of_document(self, token: int) -> str | None:
        """What is wrong if the documents do not end with the token. How an adopted dataset was made is not known:
        then some of its documents are looked at.
        """
        found = (self._lacks_end_of_document(shard, token) for shard in self._shards.all())
        return next((each for each in found if each is not None), None)

    def _lacks_end_of_document(self, shard: Shard, token: int) -> str | None:
        if shard.facts.settings is not None:
            return None if shard.facts.settings.append_eod else f"dataset {shard.prefix} was made without --append-eod"
        documents = shard.dataset.number_of_documents
        for document in np.unique(np.linspace(0, documents - 1, ADOPTED_DOCUMENTS_LOOKED_AT).astype(np.int64)).tolist():
            start, end = (shard.dataset.document_token_offset(document + after) for after in (0, 1))
            if end > start and shard.dataset.tokens[end - 1] != token:
                return f"document {document} of dataset {shard.prefix} does not end with token {token}"
        return None

    def check(self, vocab_size: int, training_samples: int, validation_samples: int) -> DataPlan:
        """Checks that the data is enough for a run and fits its model.

        Args:
            vocab_size: rows of the model's token embedding.
            training_samples: samples of the whole run, steps x global batch.
            validation_samples: samples of one validation; 0 if the run has none.

        Raises:
            TrainyardError: a token id beyond the vocabulary, or too few samples; all of it is told.
        """
        refuse(
            [
                *self.vocabulary_problems(vocab_size),
                *self.answer_problems(),
                *self.training_problems(training_samples),
                *self.validation_problems(validation_samples),
            ]
        )
        return self.plan(training_samples, validation_samples)

    def plan(self, training_samples: int, validation_samples: int) -> DataPlan:
        """How much a run reads of data that is enough for it."""
        skipped = SkippedSamples(self._config.skip_samples)
        return DataPlan(
            window=self._lengths.stride,
            counted=self._lengths.counted,
            planned_samples=training_samples,
            skipped_samples=skipped.passed(training_samples),
            skipped=skipped,
            sources=self._source_plans(skipped.reached(training_samples)),
            changes=[describe_change(change) for change in self._config.changes],
            groups=[
                GroupPlan(group.name, group.tokens, len(group.samples), validation_samples) for group in self.groups
            ],
        )

    def _source_plans(self, places: int) -> list[SourcePlan]:
        shares = dict(zip(self.stages.stages[0].sources, self.stages.stages[0].weights, strict=True))
        return [
            SourcePlan(
                name=each.name,
                weight=shares.get(number, 0) / PERIOD,
                tokens=each.training.tokens,
                samples=len(each.training.samples),
                planned_samples=planned,
                max_epochs=each.source.max_epochs or self._config.max_epochs,
                cut_into=self._cut_into,
                how_cut=cutting.describe() if (cutting := each.training.cutting) else "no overlap, no padding",
            )
            for number, (each, planned) in enumerate(
                zip(self.sources, self.stages.counts(places).tolist(), strict=True)
            )
        ]

    @property
    def _cut_into(self) -> str:
        """What documents are cut into."""
        name = self._config.samples.name
        if name == "stream":
            return f"windows of {self._lengths.stride}"
        return f"{name} of {self._lengths.read}"

    def vocabulary_problems(self, vocab_size: int) -> Iterator[str]:
        """Token ids of the datasets that a vocabulary of this size lacks."""
        for shard in self._shards.all():
            largest, tokenizer = shard.facts.largest_token_id, shard.facts.tokenizer
            if largest >= vocab_size:
                yield (
                    f"dataset {shard.prefix} holds token id {largest}, model.vocab_size {vocab_size} has ids up to "
                    f"{vocab_size - 1}; set model.vocab_size to {tokenizer.vocab_size} or more"
                )
            elif tokenizer.as_ids_alone and tokenizer.vocab_size > vocab_size:
                # No text shows such tokens, so a dataset may be without them; whoever added them wants them in a model.
                yield (
                    f"tokenizer {tokenizer.name} of dataset {shard.prefix} was extended to {tokenizer.vocab_size} "
                    f"ids, model.vocab_size {vocab_size} has ids up to {vocab_size - 1}; set model.vocab_size to "
                    f"{tokenizer.vocab_size} or more"
                )

    def answer_problems(self) -> Iterator[str]:
        """Pairs and chats that would be cut as if they were text, and a choice about answers where there are none."""
        samples, records = self._config.samples, [shard for shard in self.shards if shard.has_answers]
        if records and not isinstance(samples, FilteredSection):
            yield (
                f"dataset {records[0].prefix} holds records with answers, and data.samples {samples.name} would cut "
                "them apart and predict the questions too; set data.samples to packs"
            )
        elif not records and isinstance(samples, FilteredSection) and not samples.answers_only:
            yield (
                "data.samples.answers_only: false has no effect: no dataset of the run holds pairs or chats; remove it"
            )

    def training_problems(self, samples: int) -> Iterator[str]:
        """What keeps a run from reading this many training samples."""
        skipped = SkippedSamples(self._config.skip_samples)
        for opened, plan in zip(self.sources, self._source_plans(skipped.reached(samples)), strict=True):
            if plan.samples == 0:
                yield (
                    f"{self._told(opened, 'training')} has {plan.tokens} tokens, one sample needs "
                    f"{self._lengths.read}; give more data, a larger share, or a smaller data.sequence_length"
                )
            elif plan.planned_samples > plan.samples * plan.max_epochs:
                yield self._too_many_epochs(opened, plan, samples, skipped)

    def _too_many_epochs(self, opened: OpenedSource, plan: SourcePlan, samples: int, skipped: SkippedSamples) -> str:
        passed = plan.planned_samples
        if len(self.sources) == 1:
            left_out = f" and leaves out {skipped.passed(samples):,}" if passed > samples else ""
            reads = f"the run reads {counted(samples, 'sample')}{left_out}"
        else:
            reads = f"the run reads {counted(passed, 'sample')} of source {plan.name}"
        key = "data.max_epochs" if opened.source.max_epochs is None else f"max_epochs of source {plan.name}"
        return (
            f"{reads} = {plan.planned_epochs:.3f} epochs of the {counted(plan.samples, 'window')} of "
            f"{self._lengths.stride} in {self._told(opened, 'training')}, {key} allows {plan.max_epochs:g}; give more "
            f"data, fewer training.steps, {'' if len(self.sources) == 1 else 'a smaller weight, '}or set {key} to "
            f"{-(-passed * 1000 // plan.samples) / 1000:.3f} or more"
        )

    def _told(self, opened: OpenedSource, part: str) -> str:
        """The part of a source, for people."""
        source = opened.source
        which = str(self._checkout / source.path)
        named = "" if source.name == ONLY_SOURCE else f"source {source.name}, "
        details = "" if source.told() == source.path else f", {source.told().removeprefix(source.path).strip()}"
        return f"the {part} split of {named}{which} (data.split {self._config.split}{details})"

    def validation_problems(self, samples: int) -> Iterator[str]:
        """What keeps a run from reading this many validation samples of each group."""
        if not samples:
            return
        for group in self.groups:
            windows, tokens, documents = len(group.samples), group.tokens, group.documents
            if samples <= windows:
                continue
            if not self.groups_are_named:
                told = self._told(self.sources[0], "validation")
                all_documents = sum(s.dataset.number_of_documents for each in self.sources for s in each.shards)
                yield (
                    f"evaluation.samples is {samples:,}, {told} has {counted(windows, 'window')} of "
                    f"{self._lengths.stride} ({tokens:,} tokens, {documents} of {counted(all_documents, 'document')}: "
                    "splits are by document); lower it, raise the validation share of data.split, or set evaluation "
                    "to null"
                )
            else:
                yield (
                    f"evaluation.samples is {samples:,}, validation group {group.name} has "
                    f"{counted(windows, 'window')} of {self._lengths.stride} in proportion to its weights ({tokens:,} "
                    f"tokens in {counted(documents, 'document')}{group.told_left_out}); lower it, or give the group "
                    "more documents"
                )


def _ends_within_chats(facts: DatasetFacts) -> bool:
    """Whether the token that ends documents may stand within one, behind each answer of a chat."""
    settings, answers = facts.settings, facts.answers
    if settings is None or answers is None or settings.records != "chat":
        return False
    return settings.template != "plain" or answers.answers > facts.documents
