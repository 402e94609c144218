"""Where the documents of a selection lie in a dataset, in blocks."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_format import MAKE_AGAIN
from data_tools.datasets.selection import Selection
from megatron_patches.errors import Damaged


class Stretches(NamedTuple):
    """Stretches of a dataset's tokens, in file order; they may overlap."""

    starts: NDArray[np.int64]
    """first token of each, int64 [n]"""
    lengths: NDArray[np.int64]
    """tokens of each, int64 [n]"""

    @property
    def ends(self) -> NDArray[np.int64]:
        """Tokens before the end of each, int64 [n]."""
        return self.starts + self.lengths

    def where(self, chosen: NDArray[np.bool_]) -> "Stretches":
        """Those of a mask, bool [n]."""
        return self if chosen.all() else Stretches(self.starts[chosen], self.lengths[chosen])


def equal_blocks(documents: Selection, size: int) -> Iterator[NDArray[np.int64]]:
    """The documents of a selection, exactly `size` at a time but for the last: int64 [size].

    A selection may give fewer at a time; what is computed of a block must not depend on that.
    """
    waiting: list[NDArray[np.int64]] = []
    count = 0
    for block in documents.blocks(size):
        waiting.append(block)
        count += len(block)
        if count >= size:
            together = np.concatenate(waiting)
            yield together[:size]
            waiting, count = [together[size:]], count - size
    if count:
        yield np.concatenate(waiting)


def extents(dataset: IndexedDataset, documents: NDArray[np.int64]) -> Stretches:
    """Where documents lie.

    Args:
        documents: numbers, ascending, int64 [n].

    Raises:
        Damaged: the index runs backwards or out of the dataset, or a document that was selected is not there.
    """
    outside = documents[(documents < 0) | (documents >= dataset.number_of_documents)]
    if outside.size or (documents[1:] <= documents[:-1]).any():
        told = f"document {outside[0]} of {dataset.number_of_documents}" if outside.size else "one of them twice"
        raise Damaged(f"{dataset.idx_path}: the selected documents are not those of the dataset ({told})")
    starts, ends = (_token_offsets(dataset, documents + after) for after in (0, 1))
    # the next document begins where this one ends or behind it, else tokens would be in two of them
    following = np.append(starts[1:], len(dataset.tokens))
    if (wrong := np.flatnonzero((ends < starts) | (following < ends))).size:
        document = int(documents[wrong[0]])
        raise Damaged(
            f"{dataset.idx_path}: document {document} starts at token {starts[wrong[0]]} and ends at "
            f"{ends[wrong[0]]}, past the beginning of the next one. {MAKE_AGAIN}"
        )
    return Stretches(starts, ends - starts)


def _token_offsets(dataset: IndexedDataset, documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens before each document; the number of documents itself gives the number of tokens."""
    sequences = dataset.document_indices[documents].astype(np.int64)
    inside = sequences < len(dataset)
    if (wrong := np.flatnonzero((sequences < 0) | (sequences > len(dataset)))).size:
        first = int(wrong[0])
        raise Damaged(
            f"{dataset.idx_path}: document {documents[first]} starts at sequence {sequences[first]} of "
            f"{len(dataset)}. {MAKE_AGAIN}"
        )
    offsets = np.full(len(documents), len(dataset.tokens), dtype=np.int64)
    offsets[inside] = dataset.sequence_pointers[sequences[inside]] // dataset.dtype.itemsize
    if (wrong := np.flatnonzero((offsets < 0) | (offsets > len(dataset.tokens)))).size:
        first = int(wrong[0])
        raise Damaged(
            f"{dataset.idx_path}: document {documents[first]} starts at token {offsets[first]} of "
            f"{len(dataset.tokens)}. {MAKE_AGAIN}"
        )
    return offsets
