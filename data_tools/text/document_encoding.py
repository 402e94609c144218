"""Documents to token ids, in this process or in several, always in the documents' order."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, Protocol

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

Chunk = list[tuple[str, ...]]


class TokenizerSource(NamedTuple):
    """A tokenizer that a process can load."""

    path: Path
    parse_special: bool


class TextEncoder(Protocol):
    """How texts become ids where that is more than the tokenizer alone does. Processes get it by pickle."""

    def encode(self, tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], Any]:
        """Ids of each text, and what there is to note of all of them."""


class EncodedTexts(NamedTuple):
    """The texts of one key in one chunk of documents."""

    tokens: NDArray[np.int32]
    """All tokens end to end."""
    lengths: list[int]
    """Tokens of each document, its end-of-document token included."""
    empty: int
    """Documents whose text gave no token."""
    notes: Any = None
    """What a `TextEncoder` noted."""


def chunks_of(documents: Iterable[tuple[str, ...]]) -> Iterator[Chunk]:
    """Groups documents so that a chunk is worth sending to a process."""
    chunk: Chunk = []
    characters = 0
    for texts in documents:
        chunk.append(texts)
        characters += sum(map(len, texts))
        if characters >= CHUNK_CHARACTERS or len(chunk) >= CHUNK_DOCUMENTS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def encode_chunk(
    tokenizer: Tokenizer, append_eod: bool, chunk: Chunk, encoder: TextEncoder | None = None
) -> list[EncodedTexts]:
    """Tokenizes a chunk.

    Args:
        encoder: what makes ids of texts; None leaves it to the tokenizer.

    Returns:
        One entry for each key.
    """
    ending = [tokenizer.end_of_document] if append_eod else []
    encoded = []
    for texts in zip(*chunk, strict=True):
        documents, notes = encoder.encode(tokenizer, texts) if encoder else (tokenizer.encode_batch(texts), None)
        empty = sum(not tokens for tokens in documents)
        ids = [token for tokens in documents for token in (*tokens, *ending)]
        lengths = [len(tokens) + len(ending) for tokens in documents]
        encoded.append(EncodedTexts(np.array(ids, dtype=np.int32), lengths, empty, notes))
    return encoded


def encode_in_order(
    chunks: Iterable[Chunk],
    tokenizer: Tokenizer,
    source: TokenizerSource,
    append_eod: bool,
    workers: int,
    encoder: TextEncoder | None = None,
) -> Iterator[list[EncodedTexts]]:
    """Tokenizes chunks; what comes out and in which order does not depend on the number of workers.

    Args:
        source: where other processes load the tokenizer from.
        workers: processes; 1 tokenizes in this one, with the tokenizer library's own threads.
        encoder: see `encode_chunk`.

    Raises:
        TrainyardError: a process died.
    """
    if workers == 1:
        for chunk in chunks:
            yield encode_chunk(tokenizer, append_eod, chunk, encoder)
        return
    # spawn: a fork copies the locks of this process's threads, and the tokenizer library has threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_use_one_thread) as pool:
        pending: deque[Future[list[EncodedTexts]]] = deque()
        try:
            for chunk in chunks:
                pending.append(pool.submit(_encode_in_worker, source, append_eod, chunk, encoder))
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
    source: TokenizerSource, append_eod: bool, chunk: Chunk, encoder: TextEncoder | None
) -> list[EncodedTexts]:
    return encode_chunk(_tokenizer_of_worker(source), append_eod, chunk, encoder)
