"""One block to token ids, with what is compared beside it."""

import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from data_tools.encoding.encoded_block import Compared, EncodedBlock
from data_tools.encoding.fast_tokenizer import FastTokenizer
from data_tools.encoding.hidden_ids import HiddenIds
from data_tools.encoding.libraries import Library, LibraryFailed, Reference
from data_tools.encoding.proof import DifferentIds
from data_tools.encoding.recipe import Recipe
from data_tools.encoding.sampling import DRAWN_CHARACTERS, Sampled, sampled
from data_tools.reading.block import Block
from data_tools.reading.entries import documents_of, where_of
from data_tools.records.encoding import RecordEncoding
from data_tools.text.document_encoding import EncodedTexts, SpacedIds, TextEncoder, ids_type, spaced, texts_of
from data_tools.text.tokenizer import Tokenizer

MEMORY_GROWTH = 120e6
"""resident bytes beyond those at the start at which a library is built again: caches of gigatoken only grow"""
_BLOCKS_BETWEEN = 16
"""blocks between two looks at the memory; one block of random words adds 1.5 MB"""


class BlockEncoder:
    """Encodes blocks by a library and compares a sample with the reference.

    Args:
        reference: the recipe's tokenizer.
        library: what encodes; it may be the reference itself.
    """

    def __init__(self, recipe: Recipe, reference: Tokenizer, library: Library) -> None:
        self._recipe = recipe
        self._tokenizer = reference
        self._reference = Reference(reference)
        self._library = library
        self._fast = None if isinstance(library, Reference) else FastTokenizer(reference, library)
        self._type = ids_type(reference.vocab_size)
        self._ending = reference.end_of_document if recipe.append_eod else None
        self._hidden = HiddenIds(reference.hidden_ids, reference.vocab_size)
        self._blocks = 0
        self._most_memory = resident_bytes() + MEMORY_GROWTH

    def encode(self, block: Block, by_reference: bool) -> EncodedBlock:
        """The documents or records of a block.

        Raises:
            DifferentIds: the library gives other ids than the reference.
            TrainyardError: the block cannot be read or encoded.
        """
        self._keep_memory()
        fast = None if by_reference else self._fast
        if self._recipe.records is not None:
            return self._records(self._recipe.records, block, fast)
        return self._texts(block, fast)

    def _keep_memory(self) -> None:
        self._blocks += 1
        if self._fast is None or self._blocks % _BLOCKS_BETWEEN or resident_bytes() < self._most_memory:
            return
        self._library = self._library.rebuilt()
        self._fast = FastTokenizer(self._tokenizer, self._library)
        self._most_memory = max(self._most_memory, resident_bytes() + MEMORY_GROWTH / 2)

    def _texts(self, block: Block, fast: FastTokenizer | None) -> EncodedBlock:
        documents = documents_of(block, self._recipe.keys, self._recipe.largest_document)
        chosen = sampled(documents.numbers) if fast is not None else []
        texts, hashes = [], []
        for of_key in documents.texts:
            where = _Where(block, documents.numbers, self._library)
            given, notes = self._ids(of_key, fast, where)
            hashes.append([self._compare(of_key[each.index], given, each, where) for each in chosen])
            texts.append(texts_of(given, self._ending, self._recipe.max_length, self._type, notes))
        compared = _compared(zip(*hashes, strict=True))
        return EncodedBlock(texts, documents.bad, documents.text_bytes, compared)
