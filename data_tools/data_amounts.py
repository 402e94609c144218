"""Whether a run's data is enough for what it reads, and how much that is."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_tools.data_config import ONLY_SOURCE, DataConfig
from data_tools.data_plan import DataPlan, GroupPlan, SourcePlan, describe_change
from data_tools.opened_sources import OpenedSource
from data_tools.opened_text import OpenedText
from data_tools.samples.blend import PERIOD
from data_tools.samples.blended import BlendStages
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.skipping import SkippedSamples
from data_tools.validation_group import ValidationGroup
from data_tools.wrapped_texts import is_wrapped
from megatron_patches.sizes import counted


class DataAmounts:
    """Amounts of the sources and groups of one run."""

    def __init__(
        self,
        config: DataConfig,
        lengths: SampleLengths,
        checkout: Path,
        sources: Sequence[OpenedSource | OpenedText],
        stages: BlendStages,
        groups: Sequence[ValidationGroup],
    ) -> None:
        self._config = config
        self._lengths = lengths
        self._checkout = checkout
        self.sources = sources
        self.stages = stages
        self.groups = groups

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
            self._source_plan(each, shares.get(number, 0) / PERIOD, planned)
            for number, (each, planned) in enumerate(
                zip(self.sources, self.stages.counts(places).tolist(), strict=True)
            )
        ]

    def _source_plan(self, opened: OpenedSource | OpenedText, weight: float, planned: int) -> SourcePlan:
        if isinstance(opened, OpenedText):
            tokens, cutting = opened.tokens, None
            samples = None if tokens is None else max(1, tokens // self._cut_length)
        else:
            tokens, cutting = opened.training.tokens, opened.training.cutting
            samples = len(opened.training.samples)
        return SourcePlan(
            name=opened.name,
            weight=weight,
            tokens=tokens,
            samples=samples,
            planned_samples=planned,
            max_epochs=opened.source.max_epochs or self._config.max_epochs,
            cut_into=f"{self._unit}s of {self._cut_length}{' with cls and sep' if is_wrapped(self._config) else ''}",
            cutting=cutting,
            text=opened.told if isinstance(opened, OpenedText) else None,
        )

    @property
    def _unit(self) -> str:
        """What a sample is."""
        return "pack" if self._config.samples.name == "packs" else "window"

    @property
    def _cut_length(self) -> int:
        """Tokens of a sample: of a stream those that no other has, else all that it reads."""
        return self._lengths.stride if self._config.samples.name == "stream" else self._lengths.read

    def training_problems(self, samples: int) -> Iterator[str]:
        """What keeps a run from reading this many training samples."""
        skipped = SkippedSamples(self._config.skip_samples)
        for opened, plan in zip(self.sources, self._source_plans(skipped.reached(samples)), strict=True):
            if isinstance(opened, OpenedText):
                continue  # how much there is shows when it was read
            assert plan.samples is not None
            if plan.samples == 0:
                yield (
                    f"{self._told(opened, 'training')} has {plan.tokens} tokens, one sample needs "
                    f"{self._lengths.read}; give more data, a larger share, or a smaller data.sequence_length"
                )
            elif plan.planned_samples > plan.samples * plan.max_epochs:
                yield self._too_many_epochs(opened, plan, samples, skipped)

    def _too_many_epochs(self, opened: OpenedSource, plan: SourcePlan, samples: int, skipped: SkippedSamples) -> str:
        passed, there = plan.planned_samples, plan.samples or 1
        if len(self.sources) == 1:
            left_out = f" and leaves out {skipped.passed(samples):,}" if passed > samples else ""
            reads = f"the run reads {counted(samples, 'sample')}{left_out}"
        else:
            reads = f"the run reads {counted(passed, 'sample')} of source {plan.name}"
        key = "data.max_epochs" if opened.source.max_epochs is None else f"max_epochs of source {plan.name}"
        return (
            f"{reads} = {passed / there:.3f} epochs of the {self._samples_told(there)} in "
            f"{self._told(opened, 'training')}, {key} allows {plan.max_epochs:g}; give more "
            f"data, fewer training.steps, {'' if len(self.sources) == 1 else 'a smaller weight, '}or set {key} to "
            f"{-(-passed * 1000 // there) / 1000:.3f} or more"
        )

    def _told(self, opened: OpenedSource, part: str) -> str:
        """The part of a source, for people."""
        source = opened.source
        which = str(self._checkout / (source.path or ""))
        named = "" if source.name == ONLY_SOURCE else f"source {source.name}, "
        details = "" if source.told() == source.path else f", {source.told().removeprefix(source.path or '').strip()}"
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
        if self._config.validation:
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
        """A number of samples, called by what documents are cut into."""
        return f"{counted(count, self._unit)} of {self._cut_length}"
