"""WordPiece by its own library, each word once: texts of a language repeat theirs."""

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from data_tools.encoding.libraries import Reference
from data_tools.encoding.word_cuts import Cut, Cuts
from data_tools.text.document_encoding import SpacedIds
from data_tools.text.tokenizer import Tokenizer

MOST_BYTES = 80_000_000
"""memory for remembered words and pieces, as `_Remembered.bytes` counts it; when it is full, all are forgotten"""
_EACH = 110
"""bytes that a text takes beside its characters: in dict, list and arrays; measured with 375,000 words of programs"""

_Encode = Callable[[Sequence[str]], SpacedIds]


class Words:
    """Ids of words and of their pieces, remembered.

    Args:
        tokenizer: what encodes a piece that is new.
        cuts: where texts are cut.
    """

    name = "tokenizers-by-words"

    def __init__(self, tokenizer: Tokenizer, cuts: Cuts) -> None:
        self._tokenizer = tokenizer
        self._cuts = cuts
        reference = Reference(tokenizer)
        self.version = reference.version
        self._pieces = _Remembered(reference.encode)
        word = cuts.word
        self._words = self._pieces if word is None else _Remembered(lambda words: _joined(words, word, self._pieces))

    def encode(self, texts: Sequence[str]) -> SpacedIds:
        """See `Library`."""
        ids = _joined(texts, self._cuts.text, self._words)
        if self._pieces.bytes + self._words.bytes > MOST_BYTES:
            self._pieces.forget()
            self._words.forget()
        return ids

    def rebuilt(self) -> "Words":
        """See `Library`."""
        return Words(self._tokenizer, self._cuts)


def _joined(texts: Sequence[str], cut: Cut, remembered: "_Remembered") -> SpacedIds:
    """Ids of texts, put together of those of their parts."""
    parts = list(map(cut, texts))
    ids, ends = remembered.ids(list(chain.from_iterable(parts)))
    counts = np.fromiter(map(len, parts), np.int64, len(parts))
    text_ends = np.concatenate([[0], ends])[np.cumsum(counts)]
    return SpacedIds(np.insert(ids, text_ends, 0), np.diff(text_ends, prepend=0))


class _Numbers(dict[str, int]):
    """Numbers of texts from 0 on, given where one is first asked for."""

    def __init__(self) -> None:
        self.new: list[str] = []

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        self.new.append(text)
        return number


class _Remembered:
    """Ids of texts, each of which is encoded once.

    Args:
        encode: encodes those that are new.
    """

    def __init__(self, encode: _Encode) -> None:
        self._encode = encode
        self.forget()

    def forget(self) -> None:
        """As at the start."""
        self.bytes = 0
        self._numbers = _Numbers()
        self._ids: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._ends: NDArray[np.int64] = np.zeros(0, np.int64)
        self._lengths: NDArray[np.int64] = np.zeros(0, np.int64)

    def ids(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Ids of all texts end to end, and how many there are up to the end of each."""
        numbers = np.fromiter(map(self._numbers.__getitem__, texts), np.int64, len(texts))
        if self._numbers.new:
            self._learn()
        lengths = self._lengths[numbers]
        ends = np.cumsum(lengths)
        places = np.repeat(self._ends[numbers] - ends, lengths) + np.arange(ends[-1] if ends.size else 0)
        return self._ids[places], ends

    def _learn(self) -> None:
        new = self._numbers.new
        given = self._encode(new)
        self._ids = np.concatenate([self._ids, np.delete(given.ids, given.ends())])
        self._lengths = np.concatenate([self._lengths, given.lengths])
        self._ends = np.cumsum(self._lengths)
        self.bytes += sum(map(len, new)) + _EACH * len(new)
        new.clear()
