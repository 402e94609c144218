"""How the documents of a text source become token ids."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np

from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.encoding.pool import EncodingPool
from data_tools.encoding.proof import DifferentIds
from data_tools.encoding.recipe import Recipe
from data_tools.reading.block import Block
from data_tools.reading.entries import documents_of
from data_tools.streams.settings import Encode
from data_tools.streams.text_config import TextConfig
from data_tools.text.document_encoding import EncodedTexts, encode_chunk
from data_tools.text.tokenizer import Tokenizer
from data_tools.text.tokenizers import load_tokenizer
from data_tools.text_sources.parts import OPTION


def recipe_of(text: TextConfig, tokenizer: Path) -> Recipe:
    """What is made of each block of a text source."""
    return Recipe(tokenizer=tokenizer, keys=(text.key,), append_eod=text.append_eod)


@contextmanager
def open_encoding(recipe: Recipe, allow_invalid: bool, workers: int) -> Iterator[Encode]:
    """Worker processes that encode; where the fast library gives other ids than the reference, that takes over."""
    tokenizer = load_tokenizer(recipe.tokenizer, allow_invalid)
    with EncodingPool(recipe, workers, tokenizer) as pool:

        def encode(blocks: Iterable[Block], /) -> Iterator[tuple[Block, EncodedBlock]]:
            waiting: deque[Block] = deque()
            """those that were handed over and have not come out"""
            try:
                for block, encoded in pool.encode(_noted(blocks, waiting)):
                    waiting.popleft()
                    yield block, encoded
                return
            except DifferentIds as different:
                print(f"note: {different}", file=sys.stderr, flush=True)
            with EncodingPool(recipe.with_library(pool.proof.reference.split()[0]), workers, tokenizer) as reference:
                yield from reference.encode(chain(waiting, blocks))

        yield encode


def _noted(blocks: Iterable[Block], waiting: deque[Block]) -> Iterator[Block]:
    for block in blocks:
        waiting.append(block)
        yield block


def encoding_here(recipe: Recipe, tokenizer: Tokenizer) -> Encode:
    """The same ids from this process, by the tokenizer's own library: for a few documents."""

    def encode(blocks: Iterable[Block], /) -> Iterator[tuple[Block, EncodedBlock]]:
        for block in blocks:
            found = documents_of(block, recipe.keys, recipe.largest_document, OPTION)
            (texts,) = found.texts
            documents = [(text,) for text in texts]
            encoded = encode_chunk(tokenizer, documents, recipe.append_eod) if documents else [_none()]
            yield block, EncodedBlock(encoded, found.bad, found.text_bytes)

    return encode


def _none() -> EncodedTexts:
    """The texts of no document."""
    return EncodedTexts(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
