"""Documents in a random order, with memory for a part of them alone.

Document d of a reading is drawn a number of 64 bits, mix(d * WEYL + key) with a key of the seed: a bijection, so no two
documents have the same one. In the order of these numbers the documents are shuffled uniformly, whatever the bounds of
memory are: their first bits say in which bucket a document is put, and each bucket is sorted by itself. All buckets of
a key lie in one file, at places that the lengths of documents decide before: what is written twice after a kill is
written to the same place.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.growing_file import named
from data_tools.datasets.indexed_dataset_format import appended
from data_tools.datasets.preprocessing.batch import Batch
from data_tools.datasets.preprocessing.notes import DatasetNote, PlaceNote
from data_tools.datasets.preprocessing.read_documents import ReadDocuments
from megatron_patches.bit_mixing import mix

WEYL = np.uint64(0x9E3779B97F4A7C15)
BUCKET_BYTES = 64 << 20
"""tokens of a bucket, all keys together, on average; sorting one takes several times as much"""
GROUP_TOKENS = 4 << 20
"""that are gathered at a time"""
_SCATTERED = np.dtype([("number", "<i8"), ("source", "<i4"), ("injected", "<i4"), ("sequences", "<i4")])


def order_key(seed: int, share: tuple[int, int] | None) -> np.uint64:
    """What seeds the random numbers of one reading; each of several jobs draws its own."""
    digest = hashlib.sha256(f"preprocess:shuffle:{seed}:{share or (0, 1)}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


def drawn(first: int, end: int, key: np.uint64) -> NDArray[np.uint64]:
    """The numbers of the documents [first, end), uint64 [end - first]."""
    return mix(np.arange(first, end, dtype=np.uint64) * WEYL + key)


def bits_of_buckets(bytes_of_tokens: int) -> int:
    """How many first bits say in which bucket a document is put."""
    return max(0, (bytes_of_tokens // BUCKET_BYTES).bit_length())


class Buckets:
    """The documents of one key, by buckets.

    Args:
        path: prefix of the files that hold them.
        read: prefix of the files that hold them in the order of reading.
        note: what is in those.
        bits: first bits of the drawn number that name a bucket.
        place: where the documents are in their buckets up to.
    """

    def __init__(
        self,
        path: Path,
        read: Path,
        note: DatasetNote,
        dtype: np.dtype[Any],
        key: np.uint64,
        bits: int,
        place: PlaceNote,
    ) -> None:
        self._paths = [appended(path, ending) for ending in (".bin", ".lengths", ".documents")]
        self._read = ReadDocuments(read, note, dtype)
        self._dtype = dtype
        self._key = key
        self._bits = bits
        self.place = place
        self._itemsizes = (dtype.itemsize, 4, _SCATTERED.itemsize)
        self._sizes = np.zeros((3, 1 << bits), dtype=np.int64)
        """tokens, sequences and documents of each bucket"""
        self._filled = np.zeros_like(self._sizes)
        self._count()
        self._starts = np.cumsum(self._sizes, axis=1) - self._sizes

    @property
    def number(self) -> int:
        """How many buckets there are."""
        return 1 << self._bits

    def _bucket(self, first: int, end: int) -> NDArray[np.intp]:
        if self._bits == 0:
            return np.zeros(end - first, dtype=np.intp)
        return (drawn(first, end, self._key) >> np.uint64(64 - self._bits)).astype(np.intp)

    def _count(self) -> None:
        """Reads all lengths for the sizes of the buckets, and of what is in them."""
        for first, tokens, sequences in self._read.sizes():
            buckets = self._bucket(first, first + len(tokens))
            done = max(0, min(len(tokens), self.place.documents - first))
            for kind, each in enumerate((tokens, sequences, np.ones_like(tokens))):
                self._sizes[kind] += _sums(buckets, each, 1 << self._bits)
                self._filled[kind] += _sums(buckets[:done], each[:done], 1 << self._bits)

    def scatter(self) -> Iterator[PlaceNote]:
        """Puts documents into their buckets; after each piece, up to where."""
        with ExitStack() as stack:
            files = [
                os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666) for path in self._paths
            ]
            for file in files:
                stack.callback(os.close, file)
            for batch in self._read.batches(self.place):
                self._put(files, batch)
                sequences = batch.documents if batch.sequences is None else len(batch.lengths)
                self.place = PlaceNote(
                    documents=self.place.documents + batch.documents,
                    sequences=self.place.sequences + sequences,
                    tokens=self.place.tokens + len(batch.tokens),
                )
                yield self.place
            self.sync()

    def sync(self) -> None:
        """Puts what was scattered on the disk."""
        for path in self._paths:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _put(self, files: list[int], batch: Batch) -> None:
        first = self.place.documents
        buckets = self._bucket(first, first + batch.documents)
        order = np.argsort(buckets, kind="stable")
        counts = batch.counts()
        records = np.empty(batch.documents, dtype=_SCATTERED)
        records["number"] = first + order
        records["source"], records["injected"] = batch.sources[order], batch.injected[order]
        records["sequences"] = counts[order]
        moved = gathered(batch, order)
        of_documents = np.diff(batch.ends(), prepend=0)
        columns = (moved.tokens.astype(self._dtype, copy=False), moved.lengths.astype("<i4"), records)
        for kind, (column, amounts) in enumerate(
            zip(columns, (of_documents, counts, np.ones_like(counts)), strict=True)
        ):
            sums = _sums(buckets, amounts, 1 << self._bits)
            ends = np.cumsum(sums)
            width = self._itemsizes[kind]
            for bucket in np.flatnonzero(sums).tolist():
                piece = column[int(ends[bucket] - sums[bucket]) : int(ends[bucket])]
                _write_at(
                    files[kind],
                    piece,
                    width * int(self._starts[kind, bucket] + self._filled[kind, bucket]),
                    self._paths[kind],
                )
            self._filled[kind] += sums

    def bucket(self, number: int) -> Batch:
        """The documents of one bucket, in their final order."""
        tokens, lengths, records = (
            np.fromfile(path, dtype, int(self._sizes[kind, number]), offset=width * int(self._starts[kind, number]))
            for kind, (path, dtype, width) in enumerate(
                zip(self._paths, (self._dtype, np.dtype("<i4"), _SCATTERED), self._itemsizes, strict=True)
            )
        )
        one_each = len(lengths) == len(records) and bool((records["sequences"] == 1).all())
        sequences = None if one_each and not self._read.several else records["sequences"].astype(np.int64)
        batch = Batch(tokens, lengths.astype(np.int64), sequences, records["source"], records["injected"])
        keys = mix(records["number"].astype(np.uint64) * WEYL + self._key)
        return gathered(batch, np.argsort(keys, kind="stable"))

    def remove(self) -> None:
        """Removes the files."""
        for path in self._paths:
            path.unlink(missing_ok=True)


def gathered(batch: Batch, order: NDArray[np.intp]) -> Batch:
    """The documents of a batch in another order."""
    counts = batch.counts()
    of_documents = np.diff(batch.ends(), prepend=0)
    lengths = np.empty_like(batch.lengths)
    tokens = np.empty_like(batch.tokens)
    _gather(batch.lengths, counts, order, lengths)
    _gather(batch.tokens, of_documents, order, tokens)
    sequences = None if batch.sequences is None else batch.sequences[order]
    return Batch(tokens, lengths, sequences, batch.sources[order], batch.injected[order])


def _gather(values: NDArray[Any], sizes: NDArray[np.int64], order: NDArray[np.intp], into: NDArray[Any]) -> None:
    """Stretches of an array in another order, gathered in pieces, since places take eight bytes for each value."""
    starts = np.cumsum(sizes) - sizes
    moved = sizes[order]
    ends = np.cumsum(moved)
    first = 0
    while first < len(order):
        at = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, at + GROUP_TOKENS, "right")))
        end = int(ends[last - 1])
        shifts = starts[order[first:last]] - (ends[first:last] - moved[first:last])
        into[at:end] = values[np.repeat(shifts, moved[first:last]) + np.arange(at, end)]
        first = last


def _sums(buckets: NDArray[np.intp], amounts: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Sums of amounts by bucket; exact below 2**53, which floats of bincount hold."""
    return np.bincount(buckets, weights=amounts, minlength=number).astype(np.int64)


def _write_at(file: int, piece: NDArray[Any], offset: int, path: Path) -> None:
    with np.ascontiguousarray(piece).data.cast("B") as octets, named(path):
        done = 0
        while done < len(octets):
            done += os.pwrite(file, octets[done:], offset + done)
