"""Whether two datasets are the same bytes, and where they are not."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_format import bin_path, idx_path, read_header
from megatron_patches.atomic_files import hash_file

_SHOWN = 4
"""tokens of each side"""


class Files(NamedTuple):
    """What two datasets are compared by."""

    sha256: tuple[str, str]
    """of the `.bin` and of the `.idx`"""
    documents: int
    tokens: int


def files_of(prefix: Path) -> Files:
    """The hashes of a dataset's two files, and what they hold."""
    header = read_header(idx_path(prefix))
    tokens = bin_path(prefix).stat().st_size // header.dtype.itemsize
    hashes = hash_file(bin_path(prefix))[0], hash_file(idx_path(prefix))[0]
    return Files(hashes, header.document_indices - 1, tokens)


def first_difference(ours: Path, theirs: Path) -> str:
    """A sentence on the first document that differs, for two datasets whose files differ."""
    left, right = IndexedDataset(ours), IndexedDataset(theirs)
    for number in range(min(len(left), len(right))):
        here, there = left[number], right[number]
        if not np.array_equal(here, there):
            common = min(len(here), len(there))
            place = int(np.argmax([*(here[:common] != there[:common]), True]))
            return (
                f"its text {number:,} that is not empty has other tokens than ours from number {place:,} on: "
                f"{there[place : place + _SHOWN].tolist()}, where ours has {here[place : place + _SHOWN].tolist()}"
            )
    if left.number_of_documents != right.number_of_documents or len(left) != len(right):
        return (
            f"it has {right.number_of_documents:,} documents, {len(right):,} of them with text, where ours has "
            f"{left.number_of_documents:,} and {len(left):,}"
        )
    return "its tokens are those of ours, but its files are laid out in another way"
