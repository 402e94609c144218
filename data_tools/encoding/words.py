"""WordPiece by its own library, each word once: a space ends a word whatever stands around it."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from data_tools.encoding.libraries import Reference
from data_tools.text.document_encoding import SpacedIds
from data_tools.text.tokenizer import Tokenizer

MOST_CHARACTERS = 16 << 20
"""of all words that are remembered, about 100 MB; then memory begins again"""


class Words:
    """Ids of words, remembered: texts of a language repeat theirs.

    Args:
        tokenizer: what encodes a word that is new.
    """

    name = "tokenizers-by-words"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._reference = Reference(tokenizer)
        self.version = self._reference.version
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}
        self._ids: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._lengths: NDArray[np.int64] = np.zeros(0, np.int64)
        self._characters = 0

    def encode(self, texts: Sequence[str]) -> SpacedIds:
        """See `Library`."""
        words = [text.split(" ") for text in texts]
        flat = list(chain.from_iterable(words))
        self._learn(flat)
        numbers = np.fromiter(map(self._numbers.__getitem__, flat), np.int64, len(flat))
        lengths = self._lengths[numbers]
        ends = np.cumsum(lengths)
        starts = (np.cumsum(self._lengths) - self._lengths)[numbers]
        ids = self._ids[np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if ends.size else 0)]
        text_ends = ends[np.cumsum(np.fromiter(map(len, words), np.int64, len(words))) - 1]
        if self._characters > MOST_CHARACTERS:
            self._forget()
        return SpacedIds(np.insert(ids, text_ends, 0), np.diff(text_ends, prepend=0))

    def _learn(self, words: Sequence[str]) -> None:
        new = [word for word in dict.fromkeys(words) if word not in self._numbers]
        if not new:
            return
        ids = self._reference.encode(new)
        self._ids = np.concatenate([self._ids, np.delete(ids.ids, ids.ends())])
        self._lengths = np.concatenate([self._lengths, ids.lengths])
        self._numbers.update(zip(new, range(len(self._numbers), len(self._numbers) + len(new)), strict=True))
        self._characters += sum(map(len, new))

    def rebuilt(self) -> "Words":
        """See `Library`."""
        return Words(self._tokenizer)
