"""How the documents of a text source become token ids."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.encoding.pool import EncodingPool
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
    """Worker processes that encode."""
    with EncodingPool(recipe, workers, load_tokenizer(recipe.tokenizer, allow_invalid)) as pool:
        yield pool.encode


def encoding_here(recipe: Recipe, tokenizer: Tokenizer) -> Encode:
    """The same ids from this process, by the tokenizer's own library: for a few documents."""

    def encode(blocks: Iterable[Block], by_reference: Collection[str] = ()) -> Iterator[tuple[Block, EncodedBlock]]:
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
