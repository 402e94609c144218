"""Which tokens of a dataset are answers: those of the odd-numbered sequences of their documents.

A record with answers is one document whose sequences are context and answer in turn, context first. So the index
itself says what a model is to predict, and a dataset with answers stays one that Megatron reads.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset_format import MAKE_AGAIN
from megatron_patches.errors import Damaged

MOST_AT_ONCE = 1 << 16
"""sequences, and documents, of which the index is held in memory"""


class AnswerCounts(NamedTuple):
    """Answers of a dataset, or of a part of it."""

    answers: int
    tokens: int


def counts_of(lengths: NDArray[np.integer], sequences: NDArray[np.integer]) -> AnswerCounts:
    """Counts the answers of whole documents.

    Args:
        lengths: tokens of each sequence, [sum of sequences].
        sequences: sequences of each document, [documents].
    """
    starts = np.cumsum(sequences, dtype=np.int64) - sequences
    odd = (np.arange(len(lengths), dtype=np.int64) - np.repeat(starts, sequences)) & 1
    return AnswerCounts(int(odd.sum()), int((lengths * odd).sum(dtype=np.int64)))


class AnswerIndex:
    """The index of a dataset, asked for answers.

    It is read where it is needed, by binary search and in pieces of `MOST_AT_ONCE`. numpy's own search would copy it
    whole, because the maps begin at no multiple of eight bytes.

    Args:
        lengths: tokens of each sequence, [sequences].
        pointers: first byte of each sequence, ascending, [sequences].
        document_indices: first sequence of each document, ascending, and at the end the number of sequences,
            [documents + 1].
        itemsize: bytes of a token.
        origin: the index's file, for errors.
    """

    def __init__(
        self,
        lengths: NDArray[np.int32],
        pointers: NDArray[np.int64],
        document_indices: NDArray[np.int64],
        itemsize: int,
        origin: object,
    ) -> None:
        self._lengths = lengths
        self._pointers = pointers
        self._document_indices = document_indices
        self._itemsize = itemsize
        self._origin = origin

    def mask(self, first: int, count: int) -> NDArray[np.bool_]:
        """Which of the tokens [first, first + count) are answers, bool [count]. They must be tokens of the dataset.

        Raises:
            Damaged: the sequences do not cover these tokens.
        """
        mask = np.zeros(count, dtype=np.bool_)
        if count:
            # Several sequences may start at one token; only the last of them can hold it, the others are empty.
            first_sequence = _last_at_most(self._pointers, first * self._itemsize)
            last_sequence = _last_at_most(self._pointers, (first + count - 1) * self._itemsize)
            filled = 0
            for start in range(first_sequence, last_sequence + 1, MOST_AT_ONCE):
                end = min(start + MOST_AT_ONCE, last_sequence + 1)
                filled = self._fill(mask, filled, first, start, end)
            if filled != count:
                raise self._uncovered(first, count)
        return mask

    def _fill(self, mask: NDArray[np.bool_], filled: int, first: int, start: int, end: int) -> int:
        """Writes the part of the mask that lies in the sequences [start, end); how much of it is written then."""
        begins = self._pointers[start:end] // self._itemsize
        ends = begins + self._lengths[start:end]
        inside = ends.clip(first, first + len(mask)) - begins.clip(first, first + len(mask))
        after = filled + int(inside.sum())
        if (inside < 0).any() or after > len(mask):
            raise self._uncovered(first, len(mask))
        mask[filled:after] = np.repeat(self._odd(start, end), inside)
        return after

    def _odd(self, start: int, end: int) -> NDArray[np.bool_]:
        """Whether each of the sequences [start, end) is odd-numbered in its document."""
        # Several documents may start at one sequence; only the last of them can hold it, the others are empty.
        first = _last_at_most(self._document_indices, start)
        last = _last_at_most(self._document_indices, end - 1)
        if end - start > 1 and last - first > MOST_AT_ONCE:  # very many empty documents
            middle = (start + end) // 2
            return np.concatenate((self._odd(start, middle), self._odd(middle, end)))
        if first == last or end - start == 1:
            return (np.arange(start, end) - int(self._document_indices[last])) % 2 == 1
        starts = self._document_indices[first : last + 1]
        sequences = np.arange(start, end)
        return (sequences - starts[np.searchsorted(starts, sequences, side="right") - 1]) % 2 == 1

    def _uncovered(self, first: int, count: int) -> Damaged:
        return Damaged(
            f"{self._origin}: its sequences do not cover the tokens from {first:,} to {first + count:,}. {MAKE_AGAIN}"
        )

    def counts(self, start: int, stop: int) -> AnswerCounts:
        """Counts the answers among the sequences [start, stop), in pieces.

        Raises:
            Damaged: the document index runs backwards, or out of the sequences.
        """
        answers = tokens = 0
        for first in range(start, stop, MOST_AT_ONCE):
            end = min(first + MOST_AT_ONCE, stop)
            odd = self._odd(first, end)
            answers += int(odd.sum())
            tokens += int(self._lengths[first:end][odd].sum(dtype=np.int64))
        return AnswerCounts(answers, tokens)


def _last_at_most(ascending: NDArray[np.int64], value: int) -> int:
    """Place of the last element that is at most `value`, by binary search; 0 where there is none."""
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if int(ascending[middle]) <= value:
            low = middle + 1
        else:
            high = middle
    return max(0, low - 1)
