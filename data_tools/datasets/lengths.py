"""How long the documents of a dataset are: an exact histogram, in constant memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset import IndexedDataset

DOCUMENTS_READ_AT_ONCE = 1 << 20


def length_blocks(prefix: Path, first: int, last: int) -> Iterator[NDArray[np.int64]]:
    """Tokens of the documents [first, last), 1 Mi documents at a time, int64 [n].

    The dataset is opened for each block: the pages of a map that were read stay in the process's memory as long as it.

    Raises:
        TrainyardError: the dataset is missing or damaged.
    """
    for start in range(first, last, DOCUMENTS_READ_AT_ONCE):
        yield IndexedDataset(prefix).document_lengths(start, min(start + DOCUMENTS_READ_AT_ONCE, last))


class LengthBin(NamedTuple):
    """Documents of `first` to `end` - 1 tokens."""

    first: int
    end: int
    documents: int
    tokens: int
    """Of these documents together."""


@dataclass(frozen=True)
class LengthHistogram:
    """Document lengths that occur, ascending, and how often each does.

    A trillion tokens hold less than 1.5 million different lengths (1 + 2 + ... + n of them have n^2 / 2 tokens), so
    that memory stays within some tens of MB.
    """

    lengths: NDArray[np.int64]
    """Tokens, [lengths]."""
    documents: NDArray[np.int64]
    """[lengths]."""

    @property
    def number_of_documents(self) -> int:
        """All documents, empty ones included."""
        return int(self.documents.sum())

    @property
    def tokens(self) -> int:
        """Tokens of all documents."""
        return int((self.lengths * self.documents).sum())

    def quantile(self, share: float) -> int:
        """The shortest length that at least this share of the documents does not exceed (nearest rank)."""
        cumulative = np.cumsum(self.documents)
        rank = min(max(1, int(np.ceil(share * cumulative[-1]))), int(cumulative[-1]))
        return int(self.lengths[np.searchsorted(cumulative, rank)])

    def longer_than(self, limit: int) -> tuple[int, int]:
        """How many documents are longer than this, and how many tokens they hold together."""
        first = int(np.searchsorted(self.lengths, limit, side="right"))
        documents = self.documents[first:]
        return int(documents.sum()), int((self.lengths[first:] * documents).sum())

    def bins(self, most: int) -> list["LengthBin"]:
        """Bins from the shortest to the longest document, on a logarithmic scale; empty ones have a bin of their own.

        Each edge is 2^(1/n) times the one before it, for the largest n of 8, 4, 2 and 1 that makes at most `most` bins;
        with 65 there always is one.
        """
        filled = self.lengths[self.lengths > 0]
        bins = [] if len(filled) == len(self.lengths) else [LengthBin(0, 1, int(self.documents[0]), 0)]
        if not len(filled):
            return bins
        edges = next(found for parts in (8, 4, 2, 1) if len(found := _edges(filled, parts)) <= most + 1 or parts == 1)
        cuts = np.searchsorted(self.lengths, np.asarray(edges, dtype=np.int64))
        for number, (first, end) in enumerate(pairwise(edges)):
            inside = slice(cuts[number], cuts[number + 1])
            documents = self.documents[inside]
            bins.append(LengthBin(first, end, int(documents.sum()), int((self.lengths[inside] * documents).sum())))
        return bins


def _edges(lengths: NDArray[np.int64], parts: int) -> list[int]:
    first, last = (int(np.floor(parts * np.log2(float(lengths[place])))) for place in (0, -1))
    inner = {int(np.ceil(2 ** (number / parts))) for number in range(first + 1, last + 1)}
    shortest = min(int(np.ceil(2 ** (first / parts))), int(lengths[0]))
    longest = max(int(np.ceil(2 ** ((last + 1) / parts))), int(lengths[-1]) + 1)
    return sorted({shortest, *inner, longest})


def read_histogram(prefix: Path) -> LengthHistogram:
    """Reads the index of a dataset, not its tokens.

    Raises:
        TrainyardError: the dataset is missing or damaged.
    """
    lengths, documents = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for block in length_blocks(prefix, 0, IndexedDataset(prefix).number_of_documents):
        found, times = np.unique(block, return_counts=True)
        merged, places = np.unique(np.concatenate([lengths, found]), return_inverse=True)
        counts = np.zeros(len(merged), np.int64)
        np.add.at(counts, places, np.concatenate([documents, times]))
        lengths, documents = merged, counts
    return LengthHistogram(lengths, documents)
