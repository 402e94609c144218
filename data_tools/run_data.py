"""The data of a run, checked before anything is launched and opened again by every rank."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from data_tools.data_amounts import DataAmounts
from data_tools.data_config import ONLY_GROUP, DataConfig
from data_tools.data_identity import data_identity, roles_identity
from data_tools.data_plan import DataPlan
from data_tools.data_problems import (
    answer_problems,
    end_of_document_problems,
    other_tokenizer,
    tokenizer_problems,
    vocabulary_problems,
)
from data_tools.datasets.manifest import TokenizerFacts
from data_tools.opened_sources import Folders, OnPreparation, OpenedSource, Shard, Shards, in_silence, prefixes_of
from data_tools.opened_text import OpenedText
from data_tools.samples.blend import whole_weights
from data_tools.samples.blended import BlendStages, NamedSource, Stage, TrainingSamples
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.source import SampleSource
from data_tools.sources_config import SourceConfig
from data_tools.text.special_tokens import SpecialTokens, role_problems, special_tokens
from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
from data_tools.text_sources.facts import TextPreparation, TextRequest
from data_tools.validation_group import ValidationGroup
from data_tools.wrapped_texts import dataset_problems, is_wrapped, wrapping_of
from megatron_patches.errors import TrainyardError, refuse


class RunData:
    """Opens what the `data:` section names: the datasets, their manifests, and the samples of each source.

    Args:
        checkout: folder that relative paths start from.
        lengths: of the samples that the run's objective reads.
        place_after: the place in the run's order of samples that is reached after a step; needed where `data.changes`
            has any.
        prepare: told of what is made first where it is not there yet, such as plans of samples; None makes nothing.
        texts: what is wanted of raw text; needed where the run reads any.

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
        texts: TextPreparation | None = None,
    ) -> None:
        self._config = config
        self._lengths = lengths
        self._checkout = checkout
        self._prepare = prepare
        self._texts = texts
        self._shards = Shards(config.allow_invalid)
        self._folders: Folders = {}
        self.tokenizer_id = tokenizer_id(find_tokenizer(checkout / config.tokenizer), config.allow_invalid)
        self._wrapping = wrapping_of(config, self._special_tokens) if is_wrapped(config) else None
        held_out_of = {each.name for each in config.first_sources} if not config.validation else set()
        self.sources: list[OpenedSource | OpenedText] = [
            self._open_text(each, each.name in held_out_of) if each.text else self._open(each)
            for each in config.all_sources
        ]
        self.validated_texts: list[OpenedText] = []
        """what groups of validation read of raw text"""
        self._opened_groups = [[self._open_validated(each) for each in group.sources] for group in config.validation]
        refuse(other_tokenizer(self._shards.all(), self.tokenizer_id, config.tokenizer))
        refuse(dataset_problems(self._shards.all(), self._wrapping))
        self.stages = self._stages(place_after)

    def _open(self, source: SourceConfig) -> OpenedSource:
        shards = [self._shards.open(prefix) for prefix in prefixes_of(source, self._checkout, self._folders)]
        tokenizer = self._checkout / self._config.tokenizer
        return OpenedSource(source, shards, self._config, self._lengths, tokenizer, self._prepare, self._wrapping)

    def _open_validated(self, source: SourceConfig) -> OpenedSource:
        """One of a validation group; of raw text the first documents."""
        if source.text is None:
            return self._open(source)
        opened = self._open_text(source, held_out=True, alone=True)
        if opened.held_out is None:
            raise TrainyardError(
                f"data.validation names the text of {source.name}, but evaluation.samples, which says how much of it "
                "is read, is not set; add evaluation, or leave the group out"
            )
        self.validated_texts.append(opened)
        return opened.held_out

    def _open_text(self, source: SourceConfig, held_out: bool, alone: bool = False) -> OpenedText:
        """Raw text, and the dataset of what is held out of it, where the run validates."""
        config, texts = self._config, self._texts
        assert source.text is not None and texts is not None, "what is wanted of raw text is needed"
        request = TextRequest(
            source.name, source.text, self._checkout, self._checkout / config.tokenizer, self.tokenizer_id,
            config.allow_invalid, config.samples, self._lengths, texts, held_out and texts.validation_samples > 0,
            alone, self._wrapping,
        )  # fmt: skip
        opened = OpenedText(source, config, request, self._prepare)
        if opened.facts.held_out is not None:
            path = str(texts.folder / opened.facts.held_out)
            opened.held_out = self._open(SourceConfig(name=source.name, weight=source.weight, path=path))
        return opened

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
        first = self.sources[0]
        return first.facts.tokenizer if isinstance(first, OpenedText) else first.shards[0].facts.tokenizer

    @property
    def datasets(self) -> list[OpenedSource]:
        """The sources of training that are datasets."""
        return [each for each in self.sources if isinstance(each, OpenedSource)]

    @property
    def texts(self) -> list[OpenedText]:
        """The sources of training that are raw text."""
        return [each for each in self.sources if isinstance(each, OpenedText)]

    @property
    def dataset_ids(self) -> list[str]:
        """Ids of all datasets that the run is trained on, each once."""
        return list(dict.fromkeys(each for source in self.datasets for each in source.dataset_ids))

    @property
    def identity(self) -> dict[str, Any]:
        """What of the datasets decides the order of samples (data_tools/data_identity.py)."""
        return data_identity(self._config, self.sources)

    def identity_for(self, roles: Sequence[str]) -> dict[str, Any]:
        """For the run's identity: of the datasets, and of special tokens where the run puts any into samples.

        Args:
            roles: those that the objective needs.
        """
        asked = roles or self._wrapping is not None
        return {**self.identity, **(roles_identity(self._special_tokens) if asked else {})}

    def training(self, seed: int) -> TrainingSamples:
        """The samples of the run by their place in its order."""
        named = [
            NamedSource(each.name, each.samples(seed), (each.stream_id,), is_stream=True)
            if isinstance(each, OpenedText)
            else NamedSource(
                each.name, each.training.samples, tuple(each.dataset_ids), in_file_order=each.source.order == "file"
            )
            for each in self.sources
        ]
        return TrainingSamples(named, self.stages, seed)

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
        return self.groups_at(self._lengths)

    def groups_at(self, lengths: SampleLengths) -> list[ValidationGroup]:
        """The same documents in samples of these lengths; of raw text those that are held out for the run's own."""
        if not self.groups_are_named:
            weights = [each.weight for each in self._config.first_sources]
            first = self.sources[: len(weights)]
            opened = [each.held_out if isinstance(each, OpenedText) else each for each in first]
            there = [each.at(lengths) for each in opened if each is not None]
            if len(there) < len(opened):
                return []  # the run does not validate, so nothing is held out of its text
            parts = [
                one.whole if isinstance(each, OpenedText) else one.validation
                for each, one in zip(first, there, strict=True)
            ]
            return [ValidationGroup(ONLY_GROUP, weights, there, parts)]
        cut = [[each.at(lengths) for each in opened] for opened in self._opened_groups]
        return [
            ValidationGroup(group.name, [e.weight for e in group.sources], opened, [each.whole for each in opened])
            for group, opened in zip(self._config.validation, cut, strict=True)
        ]

    def special_tokens(self, roles: Sequence[str]) -> SpecialTokens | None:
        """The tokenizer's special tokens; None where no role is asked for.

        Raises:
            TrainyardError: it has no token for one of the roles.
        """
        if not roles:
            return None
        refuse(role_problems(self._config.tokenizer, self._special_tokens, {"the objective": roles}))
        return self._special_tokens

    @cached_property
    def _special_tokens(self) -> SpecialTokens:
        return special_tokens(self._checkout / self._config.tokenizer, self._config.allow_invalid)

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
        not_ended = [each.name for each in self.texts if not each.text.append_eod]
        return end_of_document_problems(self.shards, self._tokenizer, needed_by, not_ended)

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
        return self._amounts.plan(training_samples, validation_samples)

    def training_problems(self, samples: int) -> Iterator[str]:
        """What keeps a run from reading this many training samples."""
        return self._amounts.training_problems(samples)

    def validation_problems(self, samples: int) -> Iterator[str]:
        """What keeps a run from reading this many validation samples of each group."""
        return self._amounts.validation_problems(samples)

    @cached_property
    def _amounts(self) -> DataAmounts:
        return DataAmounts(self._config, self._lengths, self._checkout, self.sources, self.stages, self.groups)

    def vocabulary_problems(self, vocab_size: int) -> Iterator[str]:
        """Token ids of the datasets, or of the tokenizer of raw text, that a vocabulary of this size lacks."""
        yield from vocabulary_problems(self.shards, vocab_size)
        if self.texts:
            yield from tokenizer_problems(self._tokenizer, vocab_size)

    def answer_problems(self) -> Iterator[str]:
        """Pairs and chats that would be cut as if they were text, and a choice about answers where there are none."""
        return answer_problems(self.shards, self._config.samples)
