"""Tokenized documents on their way into files, as arrays."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.domain_tokens.report import InjectionCounts
from data_tools.text.document_encoding import EncodedTexts

MADE_UP = -1
"""in place of a source's number: a document that no source has"""


class Batch(NamedTuple):
    """Whole documents of one key, in order."""

    tokens: NDArray[Any]
    """all tokens end to end"""
    lengths: NDArray[np.int64]
    """tokens of each sequence"""
    sequences: NDArray[np.int64] | None
    """sequences of each document, none of an empty text; None: one each"""
    sources: NDArray[np.int32]
    """number of the source of each document, or MADE_UP"""
    injected: NDArray[np.int32]
    """tokens that were put into each document"""

    @classmethod
    def of(cls, texts: EncodedTexts, source: int, counts: InjectionCounts) -> "Batch":
        """What encoding made of documents of one source.

        Args:
            counts: what was put into them is added.
        """
        lengths = np.asarray(texts.lengths, dtype=np.int64)
        sequences = None if texts.sequences is None else np.asarray(texts.sequences, dtype=np.int64)
        documents = len(lengths) if sequences is None else len(sequences)
        injected = np.zeros(documents, dtype=np.int32)
        if texts.notes is not None:
            injected[:] = [counts.add(notes) for notes in texts.notes]
        return cls(texts.tokens, lengths, sequences, np.full(documents, source, dtype=np.int32), injected)

    @property
    def documents(self) -> int:
        """How many there are."""
        return len(self.sources)

    def counts(self) -> NDArray[np.int64]:
        """Sequences of each document, int64 [documents]."""
        return np.ones(self.documents, dtype=np.int64) if self.sequences is None else self.sequences

    def ends(self) -> NDArray[np.int64]:
        """Tokens up to the end of each document, int64 [documents]."""
        return _up_to(self.lengths)[self._last_sequences()]

    def part(self, first: int, end: int) -> "Batch":
        """The documents [first, end) alone."""
        if (first, end) == (0, self.documents):
            return self
        bounds = np.concatenate(([0], self._last_sequences()))
        start, stop = int(bounds[first]), int(bounds[end])
        offsets = _up_to(self.lengths)
        return Batch(
            self.tokens[offsets[start] : offsets[stop]],
            self.lengths[start:stop],
            None if self.sequences is None else self.sequences[first:end],
            self.sources[first:end],
            self.injected[first:end],
        )

    def _last_sequences(self) -> NDArray[np.int64]:
        """Sequences up to the end of each document."""
        return np.arange(1, self.documents + 1) if self.sequences is None else np.cumsum(self.sequences)

    def shortened(self, most: int, ending: bool) -> tuple["Batch", int]:
        """Documents cut to a number of tokens, each of at most one sequence, and how many were longer.

        Args:
            ending: whether the last token of each document is the end-of-document token, which stays the last.
        """
        longer = np.flatnonzero(self.lengths > most)
        if not longer.size:
            return self, 0
        ends = _up_to(self.lengths)
        tokens = self.tokens.copy()
        kept = np.ones(len(tokens), dtype=np.bool_)
        for document in longer.tolist():
            first, end = int(ends[document]), int(ends[document + 1])
            kept[first + most : end] = False
            if ending:
                tokens[first + most - 1] = tokens[end - 1]
        return self._replace(tokens=tokens[kept], lengths=np.minimum(self.lengths, most)), len(longer)


def joined(batches: list[Batch]) -> Batch:
    """Batches joined in their order."""
    if len(batches) == 1:
        return batches[0]
    several = any(each.sequences is not None for each in batches)
    return Batch(
        np.concatenate([each.tokens for each in batches]),
        np.concatenate([each.lengths for each in batches]),
        np.concatenate([each.counts() for each in batches]) if several else None,
        np.concatenate([each.sources for each in batches]),
        np.concatenate([each.injected for each in batches]),
    )


def _up_to(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of the first lengths, from none to all: int64 [n + 1]."""
    sums = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=sums[1:])
    return sums
