"""Reading every byte of a dataset: what opening it leaves unchecked, and what a manifest must state."""

from typing import NamedTuple

import numpy as np

from data_tools.datasets.indexed_dataset import IndexedDataset
from megatron_patches.errors import TrainyardError

ELEMENTS_READ_AT_ONCE = 1 << 22


class ScanResult(NamedTuple):
    """What a dataset holds."""

    largest_token_id: int
    empty_documents: int


def scan(dataset: IndexedDataset) -> ScanResult:
    """Reads the whole index and all tokens, in pieces of 4 Mi elements.

    Raises:
        TrainyardError: sequences that do not follow each other, a document index that runs backwards, token ids that
            are negative or no integers.
    """
    if dataset.dtype.kind not in "iu":
        raise TrainyardError(f"{dataset.bin_path} holds {dataset.dtype.name}, expected integer token ids")
    for first in range(0, len(dataset) - 1, ELEMENTS_READ_AT_ONCE):
        dataset.check_pointers(np.arange(first, min(first + ELEMENTS_READ_AT_ONCE, len(dataset) - 1)))
    smallest, largest = _token_range(dataset)
    if smallest < 0:
        raise TrainyardError(f"{dataset.bin_path} holds the negative token id {smallest}; make the dataset again")
    return ScanResult(largest, _empty_documents(dataset))


def _empty_documents(dataset: IndexedDataset) -> int:
    empty = 0
    for first in range(0, dataset.number_of_documents, ELEMENTS_READ_AT_ONCE):
        last = min(first + ELEMENTS_READ_AT_ONCE, dataset.number_of_documents)
        empty += int(np.count_nonzero(dataset.document_lengths(first, last) == 0))
    return empty


def _token_range(dataset: IndexedDataset) -> tuple[int, int]:
    smallest, largest = int(dataset.tokens[0]), int(dataset.tokens[0])
    for first in range(0, len(dataset.tokens), ELEMENTS_READ_AT_ONCE):
        piece = dataset.tokens[first : first + ELEMENTS_READ_AT_ONCE]
        smallest, largest = min(smallest, int(piece.min())), max(largest, int(piece.max()))
    return smallest, largest
