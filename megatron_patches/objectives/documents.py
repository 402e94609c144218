"""The documents of a batch of samples, found by the token that ends them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class DocumentSpans:
    """Documents in the order of samples and, within each, of positions; one number of each, int64 `[documents]`.

    Of a document that begins or ends in another sample, the part in this one counts as a document.
    """

    shape: tuple[int, int]
    """samples, positions of each"""
    row: NDArray[np.int64]
    """sample of the batch that it lies in"""
    number: NDArray[np.int64]
    """how many begin before it in its sample"""
    start: NDArray[np.int64]
    """its first position"""
    length: NDArray[np.int64]
    """its positions"""

    def at_places(self, values: NDArray[np.int64]) -> Tensor:
        """Each document's value at each of its positions, int64 `[batch, sequence]`."""
        return torch.from_numpy(np.repeat(values, self.length).reshape(self.shape))

    def positions(self) -> Tensor:
        """Places counted from the beginning of each document, int64 `[batch, sequence]`."""
        return torch.arange(self.shape[1]) - self.at_places(self.start)


def find_documents(tokens: Tensor, end_of_document: int) -> DocumentSpans:
    """Documents of int64 `[batch, sequence]`; the token that ends a document belongs to it."""
    begins = np.ones(tokens.shape, dtype=bool)
    begins[:, 1:] = tokens.numpy()[:, :-1] == end_of_document
    return _spans(begins)


def segment_spans(segments: Tensor) -> DocumentSpans:
    """Stretches of one number in int64 `[batch, sequence]`; padding at the end is a document of its own."""
    numbers = segments.numpy()
    begins = np.ones(numbers.shape, dtype=bool)
    begins[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    return _spans(begins)


def _spans(begins: NDArray[np.bool_]) -> DocumentSpans:
    """Documents that begin where bool `[batch, sequence]` says; each row's first position is one of them."""
    row, start = np.nonzero(begins)
    first_of_row = np.flatnonzero(start == 0)
    return DocumentSpans(
        shape=(begins.shape[0], begins.shape[1]),
        row=row,
        number=np.arange(len(row)) - first_of_row[row],
        start=start,
        length=np.diff(row * begins.shape[1] + start, append=begins.size),
    )


def whole_samples(tokens: Tensor, segments: Tensor | None = None) -> DocumentSpans:
    """Every sample of int64 `[batch, sequence]` as one document, whatever it holds; padding at its end is another.

    Args:
        segments: number of each token's text, -1 for padding, int64 `[batch, sequence]`; None where nothing is padding.
    """
    begins = np.zeros(tokens.shape, dtype=bool)
    begins[:, 0] = True
    if segments is not None:
        padding = segments.numpy() < 0
        begins[:, 1:] = padding[:, 1:] & ~padding[:, :-1]
    return _spans(begins)
