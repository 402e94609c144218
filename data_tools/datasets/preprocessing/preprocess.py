"""From files of text to a dataset: `PREFIX.bin`, `PREFIX.idx`, `PREFIX.manifest.json`."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_tools.datasets.answers import counts_of
from data_tools.datasets.indexed_dataset import IndexedDatasetWriter, best_dtype
from data_tools.datasets.indexed_dataset_format import bin_path, idx_path
from data_tools.datasets.manifest import (
    AnswerFacts,
    DatasetFacts,
    SettingsFacts,
    SourceFacts,
    describe_tokenizer,
    manifest_path,
)
from data_tools.datasets.preprocessing.encoded_sources import EncodingProgress, Reading, encoded_chunks
from data_tools.datasets.preprocessing.request import (
    PreprocessRequest,
    check_request,
    command_of,
    settings_facts,
    sources_of,
)
from data_tools.domain_tokens.report import InjectionCounts
from data_tools.reading.files.sources import NOT_READ_NAMED, FoundParts, NotRead
from data_tools.records.encoding import RecordEncoding
from data_tools.text.document_encoding import EncodedTexts
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.manifest import FileRecord, build_manifest, write_manifest
from megatron_patches.errors import TrainyardError
from megatron_patches.sizes import counted


@dataclass(frozen=True)
class DatasetSummary:
    """One finished dataset."""

    prefix: Path
    id: str
    facts: DatasetFacts


@dataclass(frozen=True)
class PreprocessSummary:
    """What was made, and how fast."""

    datasets: list[DatasetSummary]
    not_read: list[NotRead]
    """What the given folders hold beside documents."""
    text_bytes: int
    seconds: float

    @property
    def megabytes_per_second(self) -> float:
        """Text in UTF-8, 10**6 bytes a second."""
        return self.text_bytes / 1e6 / self.seconds

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all datasets together."""
        return sum(dataset.facts.tokens for dataset in self.datasets) / self.seconds


def preprocess(
    request: PreprocessRequest, on_progress: Callable[[EncodingProgress], None] = lambda progress: None
) -> PreprocessSummary:
    """Tokenizes text into one dataset for each key; document k of every dataset comes from the same place.

    Raises:
        TrainyardError: bad input, or fewer tokens than were asked for. Nothing appears under the datasets' names then,
            and old ones are untouched.
    """
    started = time.perf_counter()
    found = sources_of(request)
    tokenizer = load_tokenizer(request.tokenizer, request.allow_invalid, request.parse_special)
    check_request(request, tokenizer)
    form = request.records
    injection = request.arithmetic.injection(tokenizer, form is not None and form.template == "tokenizer")
    encoding = None
    if form is not None:
        encoding = RecordEncoding.of(form, request.tokenizer, request.append_eod, injection)
        encoding.check(tokenizer)
    request.output.parent.mkdir(parents=True, exist_ok=True)
    reading = Reading(found.parts, request)
    with ExitStack() as stack:
        dtype = best_dtype(tokenizer.vocab_size)
        writers = [stack.enter_context(IndexedDatasetWriter(path, dtype)) for path in request.prefixes().values()]
        chunks = encoded_chunks(request, tokenizer, encoding, injection, reading)
        written = _write(request, chunks, reading, writers, on_progress)
        settings = settings_facts(request, encoding, tokenizer)
        facts = _facts(settings, tokenizer, found, reading.source_facts(writers[0].documents), writers, written)
        # The old manifest goes first: data without a manifest is refused, data under another one's goes unnoticed.
        for path in request.prefixes().values():
            manifest_path(path).unlink(missing_ok=True)
    datasets = [_write_manifest(request, tokenizer, writer, each) for writer, each in zip(writers, facts, strict=True)]
    return PreprocessSummary(datasets, found.not_read, reading.text_bytes, time.perf_counter() - started)


@dataclass
class _Written:
    """What one writer was given."""

    empty_documents: int = 0
    answers: int = 0
    answer_tokens: int = 0
    injected: InjectionCounts = field(default_factory=InjectionCounts)

    def add(self, texts: EncodedTexts) -> None:
        self.empty_documents += len(texts.empty)
        for notes in texts.notes or ():
            self.injected.add(notes)
        if texts.sequences is not None:
            answers = counts_of(np.array(texts.lengths, dtype=np.int64), np.array(texts.sequences, dtype=np.int64))
            self.answers += answers.answers
            self.answer_tokens += answers.tokens


def _write(
    request: PreprocessRequest,
    chunks: Generator[list[EncodedTexts], None, None],
    reading: Reading,
    writers: Sequence[IndexedDatasetWriter],
    on_progress: Callable[[EncodingProgress], None],
) -> list[_Written]:
    """Completes every writer's files.

    Raises:
        TrainyardError: the sources have fewer tokens than were asked for.
    """
    written = [_Written() for _ in writers]
    with closing(chunks):
        for chunk in chunks:
            wanted = None if request.tokens is None else request.tokens - writers[0].tokens
            documents = len(chunk[0].document_ends())
            if wanted is not None:
                documents = int(np.searchsorted(chunk[0].document_ends(), wanted)) + 1
            for writer, counts, texts in zip(writers, written, chunk, strict=True):
                kept = texts.first(documents)
                sequences = None if kept.sequences is None else kept.sequences.tolist()
                writer.add_documents(kept.tokens, kept.lengths.tolist(), sequences)
                counts.add(kept)
            on_progress(reading.progress)
            if request.tokens is not None and writers[0].tokens >= request.tokens:
                break
    if request.tokens is not None and writers[0].tokens < request.tokens:
        raise TrainyardError(
            f"the sources have {counted(writers[0].tokens, 'token')} in {counted(writers[0].documents, 'document')}, "
            f"--tokens asks for {request.tokens:,}; give more sources, or ask for fewer"
        )
    for writer in writers:
        writer.finish()
    return written


def _facts(
    settings: Mapping[str, SettingsFacts],
    tokenizer: Tokenizer,
    found: FoundParts,
    sources: list[SourceFacts],
    writers: Sequence[IndexedDatasetWriter],
    written: Sequence[_Written],
) -> list[DatasetFacts]:
    """The facts of each dataset.

    Raises:
        TrainyardError: a dataset would hold no text.
    """
    facts = []
    for (key, setting), writer, counts in zip(settings.items(), writers, written, strict=True):
        if counts.empty_documents == writer.documents or writer.largest_token is None:
            raise TrainyardError(
                f"the sources hold no text under {key!r}: {counted(writer.documents, 'document')}, all of them empty; "
                f"check the inputs and --{'json-keys' if setting.records == 'text' else setting.records}"
            )
        answers = AnswerFacts(answers=counts.answers, tokens=counts.answer_tokens)
        facts.append(
            DatasetFacts(
                documents=writer.documents,
                sequences=writer.sequences,
                tokens=writer.tokens,
                dtype=writer.dtype.name,
                largest_token_id=int(writer.largest_token),
                empty_documents=counts.empty_documents,
                tokenizer=describe_tokenizer(tokenizer),
                settings=setting,
                sources=sources,
                number_not_read=len(found.not_read),
                not_read=[each.name for each in found.not_read[:NOT_READ_NAMED]],
                answers=answers if setting.records != "text" else None,
                injection=None if setting.inject is None else counts.injected.facts(setting.inject),
            )
        )
    return facts


def _write_manifest(
    request: PreprocessRequest, tokenizer: Tokenizer, writer: IndexedDatasetWriter, facts: DatasetFacts
) -> DatasetSummary:
    tokens, index = writer.files
    files = [
        FileRecord(path=bin_path(writer.prefix).name, size=tokens.size, sha256=tokens.sha256),
        FileRecord(path=idx_path(writer.prefix).name, size=index.size, sha256=index.sha256),
    ]
    manifest = build_manifest("dataset", files, facts.model_dump(), [tokenizer.id], command_of(request, tokenizer))
    write_manifest(manifest_path(writer.prefix), manifest)
    return DatasetSummary(writer.prefix, manifest.id, facts)
