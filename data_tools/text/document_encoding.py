"""Documents to token ids, in this process or in several, always in the documents' order."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import TrainyardError

# Large enough that passing a chunk between processes costs little beside tokenizing it (about 0.3 s at 3 MB/s).
CHUNK_CHARACTERS = 1 << 20
CHUNK_DOCUMENTS = 4096
# Chunks read ahead for each process: enough that none waits, few enough that memory does not grow with the source.
CHUNKS_AHEAD = 3

Item = TypeVar("Item")
Texts = tuple[str, ...]
"""the texts of one document, one for each key"""


class TokenizerSource(NamedTuple):
    """A tokenizer that a process can load."""

    path: Path
    parse_special: bool


class TextEncoder(Protocol):
    """How texts become ids where that is more than the tokenizer alone does. Processes get it by pickle."""

    def encode(self, tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], Sequence[Any]]:
        """Ids of each text, and what there is to note of each."""


class EncodedTexts(NamedTuple):
    """The texts of one key in one chunk of documents."""

    tokens: NDArray[Any]
    """All tokens end to end: uint16 where every id of the vocabulary fits, else int32; see `ids_type`."""
    lengths: NDArray[np.int64]
    """Tokens of each sequence, its end-of-document token included."""
    empty: NDArray[np.int64]
    """Numbers, within the chunk, of the documents whose text gave no token."""
    sequences: NDArray[np.int64] | None = None
    """Sequences of each document; None: one each."""
    notes: list[list[Any]] | None = None
    """What a `TextEncoder` noted of the texts of each document; None: there was none."""

    @property
    def documents(self) -> int:
        """How many there are."""
        return len(self.lengths if self.sequences is None else self.sequences)

    def document_ends(self) -> NDArray[np.int64]:
        """Tokens up to the end of each document, int64 [documents]."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        if self.sequences is None:
            return ends
        return np.concatenate([[0], ends])[np.cumsum(self.sequences, dtype=np.int64)]

    def first(self, documents: int) -> "EncodedTexts":
        """The first documents alone."""
        sequences = None if self.sequences is None else self.sequences[:documents]
        lengths = self.lengths[: documents if sequences is None else int(sequences.sum())]
        empty = self.empty[: np.searchsorted(self.empty, documents)]
        notes = None if self.notes is None else self.notes[:documents]
        return EncodedTexts(self.tokens[: int(lengths.sum())], lengths, empty, sequences, notes)


class SpacedIds(NamedTuple):
    """Ids of texts as a library gives them, with room for an end-of-document token behind each text."""

    ids: NDArray[np.uint32]
    """[sum of lengths + texts]; what stands in the room means nothing"""
    lengths: NDArray[np.int64]
    """ids of each text, without the room"""

    def ends(self) -> NDArray[np.int64]:
        """Where the room of each text is, int64 [texts]."""
        return np.cumsum(self.lengths + 1) - 1

    def each(self) -> list[NDArray[np.uint32]]:
        """The ids of each text."""
        ends = self.ends()
        return [self.ids[end - length : end] for end, length in zip(ends.tolist(), self.lengths.tolist(), strict=True)]

    def cut(self, most: int) -> "SpacedIds":
        """With the first ids of each text alone.

        Args:
            most: ids that a text keeps.
        """
        if not self.lengths.size or self.lengths.max() <= most:
            return self
        starts = self.ends() - self.lengths
        places = np.arange(self.ids.size) - np.repeat(starts, self.lengths + 1)
        kept = places < np.repeat(np.minimum(self.lengths, most) + 1, self.lengths + 1)
        return SpacedIds(self.ids[kept], np.minimum(self.lengths, most))


def spaced(parts: Sequence[NDArray[np.uint32]]) -> SpacedIds:
    """Ids of texts that a library gave text by text."""
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    ids = np.empty(int(lengths.sum()) + len(parts), np.uint32)
    begin = 0
    for part, length in zip(parts, lengths.tolist(), strict=True):
        ids[begin : begin + length] = part
        begin += length + 1
    return SpacedIds(ids, lengths)


def ids_type(vocab_size: int) -> "np.dtype[Any]":
    """The type of ids on their way to a dataset: uint16 below 65,500 ids as Megatron-LM has it, else int32."""
    return np.dtype(np.uint16 if vocab_size < 65500 else np.int32)


def texts_of(
    given: SpacedIds, ending: int | None, max_length: int | None, kind: "np.dtype[Any]", notes: Sequence[Any] | None
) -> EncodedTexts:
    """Documents of one sequence each. The ids given may be changed.

    Args:
        ending: the token that ends each document, an empty one too; None: none does.
        max_length: tokens that a document keeps, its ending included; None: all.
        kind: of the tokens; holds every id.
    """
    kept = given if max_length is None else given.cut(max_length - (ending is not None))
    empty = np.flatnonzero(given.lengths == 0)
    noted = None if notes is None else [[note] for note in notes]
    if ending is None:
        tokens = np.delete(kept.ids, kept.ends())
        return EncodedTexts(tokens.astype(kind), kept.lengths, empty, notes=noted)
    tokens = kept.ids.astype(kind)
    tokens[kept.ends()] = ending
    return EncodedTexts(tokens, kept.lengths + 1, empty, notes=noted)


def characters_of(texts: Texts) -> int:
    """Characters of all texts of a document."""
    return sum(map(len, texts))


def chunks_of(documents: Iterable[Item], characters_in: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Groups documents so that a chunk is worth sending to a process.

    Args:
        characters_in: how many a document has.
    """
    chunk: list[Item] = []
    characters = 0
    for document in documents:
        chunk.append(document)
        characters += characters_in(document)
        if characters >= CHUNK_CHARACTERS or len(chunk) >= CHUNK_DOCUMENTS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def encode_texts(
    tokenizer: Tokenizer, texts: Sequence[str], encoder: TextEncoder | None
) -> tuple[list[list[int]], Sequence[Any] | None]:
    """Ids of each text, and what the encoder noted of each; without an encoder, the tokenizer's ids and None."""
    return (tokenizer.encode_batch(texts), None) if encoder is None else encoder.encode(tokenizer, texts)


def encode_chunk(
    tokenizer: Tokenizer, chunk: Sequence[Texts], append_eod: bool, encoder: TextEncoder | None = None
) -> list[EncodedTexts]:
    """Tokenizes a chunk of documents of one sequence each.

    Args:
        encoder: what makes ids of texts; None leaves it to the tokenizer.

    Returns:
        One entry for each key.
    """
    ending = tokenizer.end_of_document if append_eod else None
    encoded = []
    for texts in zip(*chunk, strict=True):
        documents, notes = encode_texts(tokenizer, texts, encoder)
        given = spaced([np.array(ids, np.uint32) for ids in documents])
        encoded.append(texts_of(given, ending, None, ids_type(tokenizer.vocab_size), notes))
    return encoded


def encode_in_order(
    chunks: Iterable[Sequence[Item]],
    tokenizer: Tokenizer,
    source: TokenizerSource,
    encode: Callable[[Tokenizer, Sequence[Item]], list[EncodedTexts]],
    workers: int,
) -> Generator[list[EncodedTexts], None, None]:
    """Tokenizes chunks; what comes out and in which order does not depend on the number of workers.

    Args:
        source: where other processes load the tokenizer from.
        encode: makes of a chunk an entry for each key; it is sent to the processes.
        workers: processes; 1 tokenizes in this one, with the tokenizer library's own threads.

    Raises:
        TrainyardError: a process died.
    """
    if workers == 1:
        for chunk in chunks:
            yield encode(tokenizer, chunk)
        return
    # spawn: a fork copies the locks of this process's threads, and the tokenizer library has threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_use_one_thread) as pool:
        pending: deque[Future[list[EncodedTexts]]] = deque()
        try:
            for chunk in chunks:
                pending.append(pool.submit(_encode_in_worker, source, encode, chunk))
                if len(pending) >= CHUNKS_AHEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise TrainyardError(
                "a tokenizing process died, most often for lack of memory; use fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _use_one_thread() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


@lru_cache(maxsize=1)
def _tokenizer_of_worker(source: TokenizerSource) -> Tokenizer:
    # whether it may be used was asked before
    return load_tokenizer(source.path, allow_invalid=True, parse_special=source.parse_special)


def _encode_in_worker(
    source: TokenizerSource, encode: Callable[[Tokenizer, Sequence[Item]], list[EncodedTexts]], chunk: Sequence[Item]
) -> list[EncodedTexts]:
    return encode(_tokenizer_of_worker(source), chunk)
