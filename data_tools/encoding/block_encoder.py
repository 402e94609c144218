"""One block to token ids, with what is compared beside it."""

import os
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_tools.encoding.comparison import Place, compared, same_ids
from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.encoding.fast_tokenizer import FastTokenizer
from data_tools.encoding.hidden_ids import HiddenIds
from data_tools.encoding.libraries import Library, LibraryFailed, Reference
from data_tools.encoding.proof import DifferentIds
from data_tools.encoding.recipe import Recipe
from data_tools.encoding.sampling import DRAWN_CHARACTERS, Sampled, sampled
from data_tools.reading.block import BadEntry, Block
from data_tools.reading.entries import documents_of, where_of
from data_tools.records.encoding import RecordEncoding
from data_tools.text.document_encoding import SpacedIds, ids_type, spaced, texts_of
from data_tools.text.tokenizer import Tokenizer

MEMORY_GROWTH = 120e6
"""resident bytes beyond those at the start at which a library is built again: caches of gigatoken only grow"""
_MEMORY = Path("/proc/self/statm")
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
        try:
            if self._recipe.records is not None:
                return self._records(self._recipe.records, block, fast)
            return self._texts(block, fast)
        except LibraryFailed as error:
            assert fast is not None
            raise DifferentIds(block.origin, where_of(block, block.first), fast.library, str(error)) from error

    def _keep_memory(self) -> None:
        self._blocks += 1
        if self._fast is None or self._blocks % _BLOCKS_BETWEEN or resident_bytes() < self._most_memory:
            return
        self._fast = FastTokenizer(self._tokenizer, self._fast.given.rebuilt())
        # What does not go away is not worth another try at the next look.
        self._most_memory = max(self._most_memory, resident_bytes() + MEMORY_GROWTH / 2)

    def _texts(self, block: Block, fast: FastTokenizer | None) -> EncodedBlock:
        documents = documents_of(block, self._recipe.keys, self._recipe.largest_document)
        chosen = sampled(documents.numbers) if fast is not None else []
        texts, same = [], []
        for of_key in documents.texts:
            given, notes = self._encoded(of_key, fast)
            if fast is not None:
                places = [Place(block, documents.numbers[each.place], fast.library) for each in chosen]
                if self._recipe.encoder is None:
                    self._refuse_hidden(given, block, documents.numbers, fast.library)
                ids = self._given_again(of_key, given, chosen, fast)
                expected = self._expected(of_key, chosen)
                same.append([same_ids(*each) for each in zip(ids, expected, places, strict=True)])
            texts.append(texts_of(given, self._ending, self._recipe.max_length, self._type, notes))
        sizes = [
            sum(len(of_key[each.place][: each.characters].encode()) for of_key in documents.texts) for each in chosen
        ]
        before = _before(documents.numbers, documents.bad)
        return EncodedBlock(texts, documents.bad, documents.text_bytes, compared(sizes, same), before)

    def _encoded(self, texts: Sequence[str], fast: FastTokenizer | None) -> tuple[SpacedIds, Sequence[object] | None]:
        """Ids, and the notes of the recipe's encoder."""
        if self._recipe.encoder is None:
            return (self._reference if fast is None else fast.given).encode(texts), None
        ids, notes = self._recipe.encoder.encode(fast or self._tokenizer, texts)
        return spaced([np.array(each, np.uint32) for each in ids]), notes

    def _given_again(
        self, texts: Sequence[str], given: SpacedIds, chosen: Sequence[Sampled], fast: FastTokenizer
    ) -> list[NDArray[np.uint32]]:
        """What the library makes of the chosen documents, or of the beginnings of those that are longer."""
        whole = given.each() if chosen else []
        return [
            whole[index]
            if len(texts[index]) <= characters
            else self._encoded([texts[index][:characters]], fast)[0].each()[0]
            for index, characters in chosen
        ]

    def _expected(self, texts: Sequence[str], chosen: Sequence[Sampled]) -> list[NDArray[np.uint32]]:
        return [self._encoded([texts[index][:characters]], None)[0].each()[0] for index, characters in chosen]

    def _refuse_hidden(self, given: SpacedIds, block: Block, numbers: Sequence[int], library: str) -> None:
        """Raises DifferentIds where a text became a token that no text becomes."""
        ends = given.ends()
        given.ids[ends] = self._hidden.ordinary
        if (place := self._hidden.first(given.ids)) is not None:
            number = numbers[int(np.searchsorted(ends, place))]
            reason = f"gives id {given.ids[place]}, which no text becomes"
            raise DifferentIds(block.origin, where_of(block, number), library, reason)

    def _records(self, encoding: RecordEncoding, block: Block, fast: FastTokenizer | None) -> EncodedBlock:
        records, bad = encoding.form.records_of(block, self._recipe.largest_document)
        texts = encoding(fast or self._tokenizer, records)
        sizes, same = list[int](), list[list[bytes]]()
        before: list[int] = []
        if fast is not None or bad:
            numbers = {where_of(block, number): number for number in range(block.first, block.first + block.entries)}
            before = _before([numbers[record.where] for record in records], bad)
        if fast is not None:
            ends = texts[0].document_ends()
            for index, _ in sampled([numbers[record.where] for record in records]):
                record = records[index]
                if record.text_bytes > DRAWN_CHARACTERS:
                    continue
                given = texts[0].tokens[ends[index - 1] if index else 0 : ends[index]]
                place = Place(block, numbers[record.where], fast.library)
                same.append([same_ids(given, encoding(self._tokenizer, [record])[0].tokens, place)])
                sizes.append(record.text_bytes)
        text_bytes = sum(record.text_bytes for record in records)
        return EncodedBlock(texts, bad, text_bytes, compared(sizes, list(zip(*same, strict=True))), before)


def _before(numbers: Sequence[int], bad: Sequence[BadEntry]) -> list[int]:
    """How many of these documents stand before each bad entry."""
    return [bisect(numbers, each.number) for each in bad]


def resident_bytes() -> int:
    """Memory that this process has in use, what it shares with others included."""
    return int(_MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
