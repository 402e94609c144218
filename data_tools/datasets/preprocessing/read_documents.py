"""Tokenized documents in unfinished files, read from one end to the other in pieces."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset_format import appended
from data_tools.datasets.indexed_dataset_writer import ENDS, LENGTHS
from data_tools.datasets.preprocessing.batch import Batch
from data_tools.datasets.preprocessing.notes import DatasetNote, PlaceNote
from data_tools.datasets.preprocessing.outputs import DOCUMENT, DOCUMENTS

DOCUMENTS_AT_ONCE = 1 << 18
BATCH_TOKENS = 16 << 20


class ReadDocuments:
    """What lies under an unfinished prefix, up to a note."""

    def __init__(self, unfinished: Path, note: DatasetNote, dtype: np.dtype[Any]) -> None:
        self._paths = {ending: appended(unfinished, ending) for ending in (".bin", LENGTHS, ENDS, DOCUMENTS)}
        self._documents = note.documents
        self._dtype = dtype
        self.several = note.ends
        """whether a document may have another number of sequences than one"""

    def _column(self, ending: str, dtype: np.dtype[Any], first: int, end: int) -> NDArray[Any]:
        return np.fromfile(self._paths[ending], dtype, end - first, offset=first * dtype.itemsize)

    def _sequences(self, first: int, end: int, before: int) -> NDArray[np.int64]:
        """Sequences of each document of [first, end); `before` is how many sequences come before them."""
        if not self.several:
            return np.ones(end - first, dtype=np.int64)
        return np.diff(self._column(ENDS, np.dtype("<i8"), first, end), prepend=before)

    def _pieces(self, place: PlaceNote) -> Iterator[tuple[int, int, int, NDArray[np.int64], NDArray[np.int64]]]:
        """Stretches [first, end) of documents after a place: sequences before, sequences of each, lengths of those."""
        before = place.sequences
        for first in range(place.documents, self._documents, DOCUMENTS_AT_ONCE):
            end = min(first + DOCUMENTS_AT_ONCE, self._documents)
            counts = self._sequences(first, end, before)
            after = before + int(counts.sum())
            lengths = self._column(LENGTHS, np.dtype("<i4"), before, after).astype(np.int64)
            yield first, end, before, counts, lengths
            before = after

    def sizes(self) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Stretches of documents: the first one's number, and of each its tokens and its sequences."""
        for first, end, _, counts, lengths in self._pieces(PlaceNote()):
            sources = np.zeros(end - first, dtype=np.int32)
            bare = Batch(np.empty(0), lengths, counts if self.several else None, sources, sources)
            yield first, np.diff(bare.ends(), prepend=0), counts

    def batches(self, place: PlaceNote) -> Iterator[Batch]:
        """All documents after a place, in batches of bounded size, unless one document is larger."""
        token = place.tokens
        for first, end, _, counts, lengths in self._pieces(place):
            documents = self._column(DOCUMENTS, DOCUMENT, first, end)
            sequences = counts if self.several else None
            bare = Batch(np.empty(0), lengths, sequences, documents["source"], documents["injected"])
            ends = bare.ends()
            bounds = np.concatenate(([0], np.cumsum(counts)))
            start = 0
            while start < end - first:
                at = int(ends[start - 1]) if start else 0
                last = max(start + 1, int(np.searchsorted(ends, at + BATCH_TOKENS, "right")))
                stop = int(ends[last - 1])
                yield Batch(
                    self._column(".bin", self._dtype, token + at, token + stop),
                    lengths[int(bounds[start]) : int(bounds[last])],
                    None if sequences is None else sequences[start:last],
                    documents["source"][start:last],
                    documents["injected"][start:last],
                )
                start = last
            token += int(ends[-1])
