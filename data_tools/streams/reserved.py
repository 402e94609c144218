"""The first documents of a source, which are kept for evaluation."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data_tools.reading.block import BEGINNING, Part
from data_tools.samples.source import Sample
from data_tools.streams.cutting import Cutting
from data_tools.streams.document_blocks import count_bad
from data_tools.streams.documents import TokenDocuments, documents_of, together
from data_tools.streams.end_of_data import EndOfData, NoSamples
from data_tools.streams.feed import Feed, Read
from data_tools.streams.settings import Encode, StreamSettings
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted


class ReservedSamples:
    """Samples of documents that are held in memory: a `SampleSource`. They are cut together, in the given order."""

    def __init__(self, documents: TokenDocuments, per_part: Sequence[int], cutting: Cutting) -> None:
        self.per_part = tuple(per_part)
        """documents of each part, for `StreamSettings.reserved`"""
        self.documents = len(documents.lengths)
        self.tokens = len(documents.tokens)
        self._samples, _ = cutting.cut(documents, [])

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Sample:
        """Raises IndexError where there is no such sample."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        arrays = self._samples.arrays(int(number), int(number) + 1)
        return {name: rows[0].astype(np.int64) for name, rows in arrays.items()}


def reserve(
    parts: Sequence[Part], encode: Encode, settings: StreamSettings, minimum_documents: int, minimum_samples: int
) -> ReservedSamples:
    """Reads the first documents in the given order of parts: at least `minimum_documents`, and as many more as make
    `minimum_samples` samples; of numbers that grow by an eighth, the first that does.

    Raises:
        NoSamples: there is no document.
        EndOfData: there are not enough; it says how many there are.
        Damaged: a part is cut off, or not of its format.
        TrainyardError: the parts cannot be read, or have too many entries that are no documents.
    """
    ordered = replace(settings, shuffle_documents=1, reserved=(), max_epochs=1)
    documents = _Documents(parts, encode, ordered)
    cutting = Cutting(ordered)
    count = max(1, minimum_documents)
    while True:
        enough = documents.read(count)
        found = ReservedSamples(*documents.first(count), cutting)
        if enough and len(found) >= minimum_samples:
            return found
        if not enough:
            raise EndOfData(
                f"source {printable(settings.source)} has {counted(found.documents, 'document')} with "
                f"{counted(found.tokens, 'token')}, which make {counted(len(found), 'sample')}; "
                f"{counted(max(1, minimum_documents), 'document')} and {counted(minimum_samples, 'sample')} are to be "
                "reserved for evaluation: reserve fewer (evaluation.samples), or give more text",
                len(found),
            )
        count += count // 8 + 1


class _Documents:
    """Documents in the given order, read as far as they are needed, and held."""

    def __init__(self, parts: Sequence[Part], encode: Encode, settings: StreamSettings) -> None:
        self._reads = Feed(parts, encode, settings).read(0, 0, BEGINNING)
        self._settings = settings
        self._held: list[TokenDocuments] = []
        self._parts: list[int] = []
        """part of each of those"""
        self._count = 0
        self._bad = 0

    def read(self, documents: int) -> bool:
        """Reads up to a number of documents; whether there are that many."""
        while self._count < documents:
            read = next(self._reads, None)
            if read is None:
                return False
            if isinstance(read, Read):
                self._bad = count_bad(self._settings, 0, self._bad, read.bad)
                self._held.append(documents_of(read.texts, self._settings.answers))
                self._parts.append(read.given)
                self._count += len(self._held[-1].lengths)
        return True

    def first(self, documents: int) -> tuple[TokenDocuments, list[int]]:
        """The first so many of those that are held, or all, and how many are of each part up to the last one's.

        Raises:
            NoSamples: none is held.
        """
        if not self._count:
            raise NoSamples(f"source {printable(self._settings.source)} has no documents; give files that have some")
        lengths = [len(each.lengths) for each in self._held]
        ends = np.minimum(np.cumsum(lengths), documents)
        of_part = np.bincount(self._parts, weights=np.diff(ends, prepend=0))
        return together(self._held).between(0, documents), np.trim_zeros(of_part.astype(np.int64), "b").tolist()
