"""From files of text to a dataset: `PREFIX.bin`, `PREFIX.idx`, `PREFIX.manifest.json`."""

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data_tools.datasets.indexed_dataset import IndexedDatasetWriter, best_dtype
from data_tools.datasets.indexed_dataset_format import bin_path, idx_path
from data_tools.datasets.manifest import (
    DatasetFacts,
    SettingsFacts,
    SourceFacts,
    check_name_of,
    describe_tokenizer,
    manifest_path,
)
from data_tools.domain_tokens.injection import Injection
from data_tools.domain_tokens.report import InjectionCounts
from data_tools.domain_tokens.request import ArithmeticRequest
from data_tools.text.document_encoding import TokenizerSource, chunks_of, encode_in_order
from data_tools.text.documents import LARGEST_DOCUMENT, read_documents
from data_tools.text.sources import NOT_READ_NAMED, FoundSources, NotRead, Source, find_sources
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.artefacts.manifest import FileRecord, build_manifest, write_manifest
from megatron_patches.atomic_files import hash_file
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import storable
from megatron_patches.sizes import counted


@dataclass(frozen=True)
class PreprocessRequest:
    """What to tokenize, with what, and where to."""

    inputs: Sequence[Path]
    """Files, or folders of files."""
    output: Path
    """Prefix of the dataset; with several keys, of PREFIX_key for each."""
    tokenizer: Path
    json_keys: Sequence[str] = ("text",)
    append_eod: bool = False
    """Whether each document ends with the tokenizer's end-of-document token."""
    parse_special: bool = False
    """Whether text that spells a control token becomes it, as Megatron-LM has it."""
    largest_document: int = LARGEST_DOCUMENT
    """Bytes; longer documents are refused."""
    workers: int = 1
    overwrite: bool = False
    allow_invalid: bool = False
    """Whether the tokenizer may be one that was marked invalid."""
    arithmetic: ArithmeticRequest = field(default_factory=ArithmeticRequest)
    """Tokens for products, and made-up documents."""

    def prefixes(self) -> dict[str, Path]:
        """The dataset of each key."""
        if len(self.json_keys) == 1:
            return {self.json_keys[0]: self.output}
        return {key: self.output.with_name(f"{self.output.name}_{key}") for key in self.json_keys}


class EncodingProgress(NamedTuple):
    """How far the reading is."""

    documents: int
    source_bytes: int
    """Bytes of the source files that were read."""
    total_source_bytes: int


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
        TrainyardError: bad input. Nothing appears under the datasets' names then, and old ones are untouched.
    """
    started = time.perf_counter()
    found = find_sources(request.inputs, request.json_keys)
    tokenizer = load_tokenizer(request.tokenizer, request.allow_invalid, request.parse_special)
    _check(request, tokenizer)
    injection = request.arithmetic.injection(tokenizer)
    injected = [InjectionCounts() for _ in request.json_keys]
    request.output.parent.mkdir(parents=True, exist_ok=True)
    reading = _Reading(found.sources, request)
    with ExitStack() as stack:
        dtype = best_dtype(tokenizer.vocab_size)
        writers = [stack.enter_context(IndexedDatasetWriter(path, dtype)) for path in request.prefixes().values()]
        empty = _write(request, tokenizer, reading, writers, on_progress, injection, injected)
        facts = _facts(request, tokenizer, found, reading.source_facts(), writers, empty, injected)
        # The old manifest goes first: data without a manifest is refused, data under another one's goes unnoticed.
        for path in request.prefixes().values():
            manifest_path(path).unlink(missing_ok=True)
    datasets = [_write_manifest(request, tokenizer, writer, each) for writer, each in zip(writers, facts, strict=True)]
    return PreprocessSummary(datasets, found.not_read, reading.text_bytes, time.perf_counter() - started)


def _check(request: PreprocessRequest, tokenizer: Tokenizer) -> None:
    if request.largest_document < 1:
        raise TrainyardError(f"the limit for one document is {request.largest_document} bytes; give 1 MiB or more")
    if request.workers < 1:
        raise TrainyardError(f"workers is {request.workers}; at least one process must tokenize")
    if not request.json_keys or len(set(request.json_keys)) != len(request.json_keys):
        raise TrainyardError(f"keys {','.join(request.json_keys)!r}: name at least one key, and each once")
    if any(not key or "/" in key for key in request.json_keys):
        raise TrainyardError(f"keys {','.join(request.json_keys)!r}: a key is part of a file name, without slashes")
    if any(storable(key) != key for key in request.json_keys):
        raise TrainyardError(f"keys {','.join(request.json_keys)!r}: a key is text in UTF-8; set your terminal to it")
    request.arithmetic.check(request.json_keys)
    for prefix in request.prefixes().values():
        check_name_of(prefix)
    if request.append_eod and tokenizer.end_of_document is None:
        raise TrainyardError(
            f"tokenizer {request.tokenizer} has no end-of-document token to append; set eos_token in its "
            "tokenizer_config.json, or leave out --append-eod"
        )
    if request.overwrite:
        return
    for prefix in request.prefixes().values():
        for path in (bin_path(prefix), idx_path(prefix), manifest_path(prefix)):
            if path.exists():
                raise TrainyardError(f"{path} exists already; choose another --output, or add --overwrite")


class _Reading:
    """The documents of all sources, counted as they pass."""

    def __init__(self, sources: Sequence[Source], request: PreprocessRequest) -> None:
        self._sources = sources
        self._request = request
        self._documents = [0] * len(sources)
        self._total_source_bytes = sum(source.path.stat().st_size for source in sources)
        self.text_bytes = 0
        self.progress = EncodingProgress(0, 0, self._total_source_bytes)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        documents = finished_source_bytes = 0
        for number, source in enumerate(self._sources):
            for document in read_documents(source.path, self._request.json_keys, self._request.largest_document):
                documents += 1
                self._documents[number] += 1
                self.text_bytes += document.text_bytes
                read = finished_source_bytes + document.source_bytes
                self.progress = EncodingProgress(documents, read, self._total_source_bytes)
                yield document.texts
            finished_source_bytes += source.path.stat().st_size

    def count(self) -> int:
        """Reads all sources once for the number of their documents."""
        request = self._request
        documents = (read_documents(each.path, request.json_keys, request.largest_document) for each in self._sources)
        return sum(1 for source in documents for _ in source)

    def source_facts(self) -> list[SourceFacts]:
        """Hashes the sources; only for a reading that is complete."""
        facts = []
        for source, documents in zip(self._sources, self._documents, strict=True):
            sha256, size = hash_file(source.path)
            facts.append(SourceFacts(name=source.name, size=size, sha256=sha256, documents=documents))
        return facts


def _write(
    request: PreprocessRequest,
    tokenizer: Tokenizer,
    reading: _Reading,
    writers: Sequence[IndexedDatasetWriter],
    on_progress: Callable[[EncodingProgress], None],
    injection: Injection | None,
    injected: Sequence[InjectionCounts],
) -> list[int]:
    """Completes every writer's files, and counts for each the documents whose text gave no token.

    Args:
        injected: gets for each writer what injection put in.
    """
    empty = [0] * len(writers)
    source = TokenizerSource(request.tokenizer, request.parse_special)
    documents = request.arithmetic.with_synthetic(reading)
    encoded = encode_in_order(chunks_of(documents), tokenizer, source, request.append_eod, request.workers, injection)
    for chunk in encoded:
        for number, (writer, texts) in enumerate(zip(writers, chunk, strict=True)):
            writer.add_documents(texts.tokens, texts.lengths)
            empty[number] += texts.empty
            if injection is not None:
                injected[number].add(texts.notes)
        on_progress(reading.progress)
    for writer in writers:
        writer.finish()
    return empty


def _facts(
    request: PreprocessRequest,
    tokenizer: Tokenizer,
    found: FoundSources,
    sources: list[SourceFacts],
    writers: Sequence[IndexedDatasetWriter],
    empty: Sequence[int],
    injected: Sequence[InjectionCounts],
) -> list[DatasetFacts]:
    """The facts of each dataset.

    Raises:
        TrainyardError: a dataset would hold no text.
    """
    facts = []
    asked = request.arithmetic
    for key, writer, empty_documents, counts in zip(request.json_keys, writers, empty, injected, strict=True):
        if empty_documents == writer.documents or writer.largest_token is None:
            raise TrainyardError(
                f"the sources hold no text under {key!r}: {counted(writer.documents, 'document')}, all of them empty; "
                "check the inputs and --json-keys"
            )
        facts.append(
            DatasetFacts(
                documents=writer.documents,
                sequences=writer.documents,
                tokens=writer.tokens,
                dtype=writer.dtype.name,
                largest_token_id=int(writer.largest_token),
                empty_documents=empty_documents,
                tokenizer=describe_tokenizer(tokenizer),
                settings=SettingsFacts(
                    json_key=key,
                    json_keys=list(request.json_keys),
                    append_eod=request.append_eod,
                    parse_special=request.parse_special,
                    inject=asked.inject,
                    synthetic_documents=asked.synthetic_documents,
                    synthetic_seed=asked.drawn_from if asked.synthetic_documents else None,
                ),
                sources=sources,
                number_not_read=len(found.not_read),
                not_read=[each.name for each in found.not_read[:NOT_READ_NAMED]],
                injection=None if asked.inject is None else counts.facts(asked.inject),
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
    manifest = build_manifest("dataset", files, facts.model_dump(), [tokenizer.id], _command(request, tokenizer))
    write_manifest(manifest_path(writer.prefix), manifest)
    return DatasetSummary(writer.prefix, manifest.id, facts)


def _command(request: PreprocessRequest, tokenizer: Tokenizer) -> str:
    """The command line with the names of files in place of this machine's paths."""
    arguments = ["tools/preprocess", *(path.name for path in request.inputs)]
    arguments += ["--output", request.output.name, "--tokenizer", tokenizer.name]
    arguments += ["--json-keys", ",".join(request.json_keys), *(["--append-eod"] if request.append_eod else [])]
    arguments += ["--parse-special"] if request.parse_special else []
    return shlex.join([*arguments, *request.arithmetic.arguments()])
