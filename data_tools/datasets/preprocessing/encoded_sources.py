"""Documents of all sources, read and tokenized in their order."""

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from data_tools.datasets.manifest import SourceFacts
from data_tools.datasets.preprocessing.request import PreprocessRequest
from data_tools.reading.block import BadEntry, Block
from data_tools.reading.entries import documents_of
from data_tools.reading.files.file_part import FilePart
from data_tools.records.encoding import RecordEncoding
from data_tools.records.record import Record, RecordForm
from data_tools.text.document_encoding import (
    EncodedTexts,
    TextEncoder,
    Texts,
    TokenizerSource,
    characters_of,
    chunks_of,
    encode_chunk,
    encode_in_order,
)
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.atomic_files import hash_file
from megatron_patches.errors import TrainyardError

Passing = TypeVar("Passing")


class EncodingProgress(NamedTuple):
    """How far the reading is."""

    documents: int
    source_bytes: int
    """Bytes of the source files that were read."""
    total_source_bytes: int


class Reading:
    """The documents of all sources, counted as they pass."""

    def __init__(self, sources: Sequence[FilePart], request: PreprocessRequest) -> None:
        self._sources = sources
        self._request = request
        self._documents = [0] * len(sources)
        self._total_source_bytes = sum(source.size for source in sources)
        self.text_bytes = 0
        self.progress = EncodingProgress(0, 0, self._total_source_bytes)

    def texts(self) -> Iterator[Texts]:
        """Documents that are texts."""
        return self._counted(self._texts_of)

    def _texts_of(self, block: Block) -> tuple[Sequence[Texts], list[BadEntry], int]:
        found = documents_of(block, self._request.json_keys, self._request.largest_document)
        return list(zip(*found.texts, strict=True)), found.bad, found.text_bytes

    def count(self) -> int:
        """Reads all sources once for the number of their texts."""
        return sum(len(self._texts_of(block)[0]) for source in self._sources for block in source.blocks())

    def records(self, form: RecordForm) -> Iterator[Record]:
        """Documents that are records."""

        def records_of(block: Block) -> tuple[Sequence[Record], list[BadEntry], int]:
            records, bad = form.records_of(block, self._request.largest_document)
            return records, bad, sum(record.text_bytes for record in records)

        return self._counted(records_of)

    def _counted(self, decode: Callable[[Block], tuple[Sequence[Passing], list[BadEntry], int]]) -> Iterator[Passing]:
        documents = finished_source_bytes = 0
        for number, source in enumerate(self._sources):
            for block in source.blocks():
                found, bad, text_bytes = decode(block)
                if bad:
                    raise TrainyardError(bad[0].reason)
                self.text_bytes += text_bytes
                for document in found:
                    documents += 1
                    self._documents[number] += 1
                    read_bytes = finished_source_bytes + block.source_bytes
                    self.progress = EncodingProgress(documents, read_bytes, self._total_source_bytes)
                    yield document
            finished_source_bytes += source.size

    def source_facts(self, documents: int) -> list[SourceFacts]:
        """Hashes the sources of the first documents, those that were written: with a number of tokens to reach, some
        are read in advance, and sources that were not needed are left out.
        """
        facts: list[SourceFacts] = []
        for source, read in zip(self._sources, self._documents, strict=True):
            if self._request.tokens is not None and documents == 0:
                break
            sha256, size = hash_file(source.path)
            facts.append(SourceFacts(name=source.name, size=size, sha256=sha256, documents=min(read, documents)))
            documents -= facts[-1].documents
        return facts


def encoded_chunks(
    request: PreprocessRequest,
    tokenizer: Tokenizer,
    encoding: RecordEncoding | None,
    encoder: TextEncoder | None,
    reading: Reading,
) -> Generator[list[EncodedTexts], None, None]:
    """Documents, or with an encoding records, in chunks.

    Args:
        encoder: what makes ids of texts; records have the encoding's own.
    """
    source = TokenizerSource(request.tokenizer, request.parse_special)
    if encoding is not None:
        records = chunks_of(reading.records(encoding.form), lambda record: record.characters)
        return encode_in_order(records, tokenizer, source, encoding, request.workers)
    texts = chunks_of(request.arithmetic.with_synthetic(reading.texts(), reading.count), characters_of)
    encode = partial(encode_chunk, append_eod=request.append_eod, encoder=encoder)
    return encode_in_order(texts, tokenizer, source, encode, request.workers)
