"""The data of a run, checked before anything is launched and opened again by every rank."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from data_tools.data_config import DataConfig
from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.manifest import read_dataset_manifest
from data_tools.datasets.split import split_documents
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.skipping import SkippedSamples, shown
from data_tools.samples.source import SampleSource
from data_tools.samples.windows import TokenWindows
from data_tools.text.tokenizers import find_tokenizer, tokenizer_id
from megatron_patches.artefacts.manifest import verify_files
from megatron_patches.errors import TrainyardError, refuse
from megatron_patches.sizes import counted

ADOPTED_DOCUMENTS_LOOKED_AT = 100  # evenly over the file; each costs one read of a page


@dataclass(frozen=True)
class DataPlan:
    """How much a run reads of what there is."""

    window: int
    """Tokens from one sample to the next."""
    counted: int
    """Tokens of a sample that count."""
    training_tokens: int
    """Tokens of the training split."""
    training_windows: int
    """Samples of one epoch."""
    planned_samples: int
    """Samples that are trained on."""
    skipped_samples: int
    """Samples that are left out before the last of them."""
    skipped: SkippedSamples
    """All that are to be left out, also beyond the run's end."""
    planned_epochs: float
    """What is left out counts: another epoch begins when this one has been passed."""
    validation_tokens: int
    validation_windows: int
    validation_samples: int

    @property
    def planned_tokens(self) -> int:
        """Tokens that count of all training samples, those read again included."""
        return self.planned_samples * self.counted

    def describe(self) -> list[tuple[str, str]]:
        """Pairs of a label and its text."""
        training = (
            f"{self.planned_tokens:,} tokens planned = {self.planned_epochs:.3f} epochs of {self.training_windows:,} "
            f"windows of {self.window} ({self.training_tokens:,} tokens; no overlap, no padding)"
        )
        validation = f"{self.validation_samples:,} of {counted(self.validation_windows, 'window')}"
        lines = [
            ("training data", training),
            ("validation data", f"{validation} ({self.validation_tokens:,} tokens)"),
        ]
        if self.skipped.count:
            beyond = self.skipped.count - self.skipped_samples
            left_out = f"{counted(self.skipped_samples, 'sample')} left out, not counted in the tokens planned"
            more = f"; {beyond:,} more lie beyond the run's end" if beyond else ""
            lines.insert(1, ("skipped data", f"{left_out}: {shown(self.skipped.ranges)}{more} (data.skip_samples)"))
        return lines


class RunData:
    """Opens what the `data:` section names: the dataset, its manifest, and the windows of each split.

    Args:
        checkout: folder that relative paths start from.
        lengths: of the samples that the run's objective reads.

    Raises:
        TrainyardError: dataset or tokenizer are missing, damaged, marked invalid, or do not belong together.
    """

    def __init__(self, config: DataConfig, checkout: Path, lengths: SampleLengths) -> None:
        self.prefix = checkout / config.path
        self._config = config
        self._lengths = lengths
        self._dataset = IndexedDataset(self.prefix)
        manifest, self._facts = read_dataset_manifest(self.prefix, config.allow_invalid)
        if problems := verify_files(manifest, self.prefix.parent, hashes=False):
            raise TrainyardError(f"{'; '.join(problems)}. Copy the dataset again, or run tools/preprocess again")
        self.dataset_id = manifest.id
        self.tokenizer_id = tokenizer_id(find_tokenizer(checkout / config.tokenizer), config.allow_invalid)
        if self.tokenizer_id != self._facts.tokenizer.id:
            raise TrainyardError(
                f"dataset {self.prefix} was made with tokenizer {self._facts.tokenizer.name} "
                f"({self._facts.tokenizer.id[:12]}), data.tokenizer {config.tokenizer} is another one "
                f"({self.tokenizer_id[:12]}); name the dataset's own, or run tools/preprocess with this one"
            )
        self._ranges = split_documents(config.split, self._dataset.number_of_documents)

    @cached_property
    def _windows(self) -> list[TokenWindows]:
        """Of training and validation, in file order."""
        return [TokenWindows(self._dataset, documents, self._lengths) for documents in self._ranges[:2]]

    @property
    def tokenizer_vocabulary(self) -> int:
        """Largest id that the tokenizer can give, plus one."""
        return self._facts.tokenizer.vocab_size

    @property
    def training(self) -> SampleSource:
        """Samples of one epoch."""
        return self._windows[0]

    @property
    def validation(self) -> Mapping[str, SampleSource]:
        """Sources that the run is validated on, by name; what is kept as the best goes by the first."""
        return {"validation": self._windows[1]}

    def end_of_document(self, needed_by: Sequence[str]) -> int | None:
        """Id of the token that ends every document; None if nothing needs it.

        Args:
            needed_by: the settings of the run that need it, as people write them.

        Raises:
            TrainyardError: the tokenizer has no such token, or the documents do not end with it.
        """
        refuse(self.end_of_document_problems(needed_by))
        return self._facts.tokenizer.end_of_document if needed_by else None

    def end_of_document_problems(self, needed_by: Sequence[str]) -> Iterator[str]:
        """Why the settings of a run that must see where documents end cannot."""
        if not needed_by:
            return
        need, tokenizer = f"{' and '.join(needed_by)} must see where documents end", self._facts.tokenizer
        if tokenizer.end_of_document is None:
            yield (
                f"{need}, and tokenizer {tokenizer.name} has no end-of-document token; take a tokenizer with one (a "
                "Hugging Face folder names it as eos_token in tokenizer_config.json) and run tools/preprocess with "
                "--append-eod, or leave the setting at its default"
            )
        elif self._ends_within_chats:
            yield (
                f"{need}, and in the chats of dataset {self.prefix} the token that ends documents may end each answer, "
                "so that a chat would be cut apart; leave the setting at its default"
            )
        elif (missing := self._without_end_of_document(tokenizer.end_of_document)) is not None:
            yield f"{need}, and {missing}; run tools/preprocess with --append-eod, or leave the setting at its default"

    @property
    def _ends_within_chats(self) -> bool:
        settings, answers = self._facts.settings, self._facts.answers
        if settings is None or answers is None or settings.records != "chat":
            return False
        return settings.template != "plain" or answers.answers > self._facts.documents

    def _without_end_of_document(self, token: int) -> str | None:
        """What is wrong if the documents do not end with the token. How an adopted dataset was made is not known:
        then some of its documents are looked at.
        """
        if self._facts.settings is not None:
            return None if self._facts.settings.append_eod else f"dataset {self.prefix} was made without --append-eod"
        documents = self._dataset.number_of_documents
        for document in np.unique(np.linspace(0, documents - 1, ADOPTED_DOCUMENTS_LOOKED_AT).astype(np.int64)).tolist():
            start, end = (self._dataset.document_token_offset(document + after) for after in (0, 1))
            if end > start and self._dataset.tokens[end - 1] != token:
                return f"document {document} of dataset {self.prefix} does not end with token {token}"
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
                *self.training_problems(training_samples),
                *self.validation_problems(validation_samples),
            ]
        )
        return self.plan(training_samples, validation_samples)

    def plan(self, training_samples: int, validation_samples: int) -> DataPlan:
        """How much a run reads of data that is enough for it."""
        training, validation = self._windows
        skipped = SkippedSamples(self._config.skip_samples)
        return DataPlan(
            window=self._lengths.stride,
            counted=self._lengths.counted,
            training_tokens=training.tokens,
            training_windows=len(training),
            planned_samples=training_samples,
            skipped_samples=skipped.passed(training_samples),
            skipped=skipped,
            planned_epochs=skipped.reached(training_samples) / len(training),
            validation_tokens=validation.tokens,
            validation_windows=len(validation),
            validation_samples=validation_samples,
        )

    def vocabulary_problems(self, vocab_size: int) -> Iterator[str]:
        """Token ids of the dataset that a vocabulary of this size lacks."""
        largest = self._facts.largest_token_id
        if largest >= vocab_size:
            yield (
                f"dataset {self.prefix} holds token id {largest}, model.vocab_size {vocab_size} has ids up to "
                f"{vocab_size - 1}; set model.vocab_size to {self._facts.tokenizer.vocab_size} or more"
            )

    def training_problems(self, samples: int) -> Iterator[str]:
        """What keeps a run from reading this many training samples."""
        windows = len(self._windows[0])
        skipped = SkippedSamples(self._config.skip_samples)
        passed = skipped.reached(samples)
        if windows == 0:
            yield (
                f"the training split of {self.prefix} (data.split {self._config.split}) has "
                f"{self._windows[0].tokens} tokens, one sample needs {self._lengths.read}; "
                "give more data, a larger share, or a smaller data.sequence_length"
            )
        elif passed > windows * self._config.max_epochs:
            left_out = f" and leaves out {skipped.passed(samples):,}" if passed > samples else ""
            yield (
                f"the run reads {counted(samples, 'sample')}{left_out} = {passed / windows:.3f} epochs of the "
                f"{counted(windows, 'window')} of {self._lengths.stride} in the training split of {self.prefix}, "
                f"data.max_epochs allows {self._config.max_epochs:g}; give more data, fewer training.steps, or set "
                f"data.max_epochs to {-(-passed * 1000 // windows) / 1000:.3f} or more"
            )

    def _documents(self, split: int) -> int:
        first, last = self._ranges[split]
        return last - first

    def validation_problems(self, samples: int) -> Iterator[str]:
        """What keeps a run from reading this many validation samples."""
        windows = len(self._windows[1])
        if samples > windows:
            yield (
                f"evaluation.samples is {samples:,}, the validation split of {self.prefix} (data.split "
                f"{self._config.split}) has {counted(windows, 'window')} of {self._lengths.stride} "
                f"({self._windows[1].tokens:,} tokens, {self._documents(1)} of "
                f"{counted(self._dataset.number_of_documents, 'document')}: splits are by document); lower it, raise "
                "the validation share of data.split, or set evaluation to null"
            )
