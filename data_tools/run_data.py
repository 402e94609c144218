"""The data of a run, checked before anything is launched and opened again by every rank."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from data_tools.data_config import ONLY_GROUP, ONLY_SOURCE, DataConfig
from data_tools.data_plan import DataPlan, GroupPlan, SourcePlan, describe_change
from data_tools.data_problems import answer_problems, end_of_document_problems, vocabulary_problems
from data_tools.datasets.manifest import TokenizerFacts
from data_tools.opened_sources import Folders, OnPreparation, OpenedSource, Shard, Shards, in_silence, prefixes_of
from data_tools.samples.blend import PERIOD, whole_weights
from data_tools.samples.blended import BlendStages, NamedSource, Stage, TrainingSamples
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.skipping import SkippedSamples
from data_tools.samples.source import SampleSource
from data_tools.sources_config import SourceConfig
from data_tools.splits.shares import parse_range
from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
from data_tools.validation_group import ValidationGroup
from megatron_patches.errors import TrainyardError, refuse
from megatron_patches.sizes import counted


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
        self._folders: Folders = {}
        self.sources = [self._open(source) for source in config.all_sources]
        self._opened_groups = [[self._open(source) for source in group.sources] for group in config.validation]
        self.tokenizer_id = tokenizer_id(find_tokenizer(checkout / config.tokenizer), config.allow_invalid)
        for shard in self._shards.all():
            self._check_tokenizer(shard)
        self.stages = self._stages(place_after)

    def _open(self, source: SourceConfig) -> OpenedSource:
        shards = [self._shards.open(prefix) for prefix in prefixes_of(source, self._checkout, self._folders)]
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
        usual = first.name == ONLY_SOURCE and parse_range(first.range) == (0, 1)
        return usual and not others and len(self.sources[0].shards) == 1

    @property
    def identity(self) -> dict[str, Any]:
        """What of the datasets decides the order of samples, for the run's identity.

        `dataset` is the id of one whole dataset; else `blend` has names and weights at the beginning, in their order,
        which decides between sources that are due at once, and `source NAME` the documents of each source that is
        read at any time.
        """
        read_later = self.sources[1:] if self._is_one else self.sources
        found: dict[str, Any] = {f"source {each.name}": each.identity for each in read_later}
        if self._is_one:
            return {"dataset": self.sources[0].shards[0].id, **found}
        first = self._config.first_sources
        weights = whole_weights([each.weight for each in first])
        return {**found, "blend": [[each.name, weight] for each, weight in zip(first, weights, strict=True)]}

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
        return end_of_document_problems(self.shards, self._tokenizer, needed_by)

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
            changes=[describe_change(change.model_dump()) for change in self._config.changes],
            groups=[
                GroupPlan(group.name, group.tokens, len(group.samples), validation_samples, self._unit)
                for group in self.groups
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
                cut_into=f"{self._unit}s of {self._cut_length}",
                cutting=each.training.cutting,
            )
            for number, (each, planned) in enumerate(
                zip(self.sources, self.stages.counts(places).tolist(), strict=True)
            )
        ]

    @property
    def _unit(self) -> str:
        """What a sample is."""
        return "pack" if self._config.samples.name == "packs" else "window"

    @property
    def _cut_length(self) -> int:
        """Tokens of a sample: of a stream those that no other has, else all that it reads."""
        return self._lengths.stride if self._config.samples.name == "stream" else self._lengths.read

    def vocabulary_problems(self, vocab_size: int) -> Iterator[str]:
        """Token ids of the datasets that a vocabulary of this size lacks."""
        return vocabulary_problems(self.shards, vocab_size)

    def answer_problems(self) -> Iterator[str]:
        """Pairs and chats that would be cut as if they were text, and a choice about answers where there are none."""
        return answer_problems(self.shards, self._config.samples)

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
            f"{reads} = {plan.planned_epochs:.3f} epochs of the {self._samples_told(plan.samples)} in "
            f"{self._told(opened, 'training')}, {key} allows {plan.max_epochs:g}; give more "
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
            if samples > len(group.samples):
                yield self._too_few_to_validate(group, samples)

    def _too_few_to_validate(self, group: ValidationGroup, samples: int) -> str:
        source, part = group.shortest
        there = f"{self._samples_told(len(part.samples))} ({part.tokens:,} tokens in"
        if len(group.sources) > 1:  # they end together, where one of them does
            there = f"enough for {len(group.samples):,} in proportion to the weights: {there}"
        if self.groups_are_named:
            of = "" if len(group.sources) == 1 else f", source {source.name}"
            return (
                f"evaluation.samples is {samples:,}, validation group {group.name}{of} has {there} "
                f"{counted(part.documents, 'document')}{group.told_left_out}); lower it, or give the group more "
                "documents"
            )
        all_documents = sum(shard.dataset.number_of_documents for shard in source.shards)
        return (
            f"evaluation.samples is {samples:,}, {self._told(source, 'validation')} has {there} {part.documents:,} of "
            f"{counted(all_documents, 'document')}: splits are by document); lower it, raise the validation share of "
            "data.split, or set evaluation to null"
        )

    def _samples_told(self, count: int) -> str:
        """So many of what documents are cut into."""
        return f"{counted(count, self._unit)} of {self._cut_length}"
