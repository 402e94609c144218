"""Documents copied from datasets into a new one in constant memory: what merging and splitting are made of.

Files are read and written in pieces, never mapped: the pages of a map count as a process's memory until it ends.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.datasets.indexed_dataset_format import CODES, HEADER, MAGIC, MAKE_AGAIN, VERSION, bin_path, idx_path
from data_tools.datasets.manifest import check_name_of, manifest_path
from megatron_patches.artefacts.manifest import FileRecord, Manifest, write_manifest
from megatron_patches.atomic_files import HashingWriter, fsync_folder, open_plain, temporary_path
from megatron_patches.errors import Damaged, TrainyardError

PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class Stretch:
    """Documents of a dataset that follow each other, with all their sequences; numbers alone, no open file."""

    prefix: Path
    dtype: np.dtype[Any]
    sequences_in_file: int
    documents: tuple[int, int]
    """First document, and the one after the last."""
    sequences: tuple[int, int]
    tokens: tuple[int, int]

    @property
    def number_of_tokens(self) -> int:
        """Tokens of all the documents together."""
        return self.tokens[1] - self.tokens[0]


def stretch_of(dataset: IndexedDataset, first: int, last: int) -> Stretch:
    """The documents [first, last).

    Raises:
        IndexError: there are no such documents.
        Damaged: the index leads out of the dataset, or backwards.
    """
    tokens = (dataset.document_token_offset(first), dataset.document_token_offset(last))
    sequences = (int(dataset.document_indices[first]), int(dataset.document_indices[last]))
    if tokens[0] > tokens[1] or sequences[0] > sequences[1]:
        raise Damaged(f"{dataset.idx_path}: document {first} starts behind document {last}. {MAKE_AGAIN}")
    return Stretch(dataset.prefix, dataset.dtype, len(dataset), (first, last), sequences, tokens)


def _read(path: Path, dtype: np.dtype[Any] | str, offset: int, count: int) -> Iterator[NDArray[Any]]:
    """Numbers of a file in pieces.

    Args:
        offset: bytes before the first.
    """
    kind = np.dtype(dtype)
    with open_plain(path) as file:
        file.seek(offset)
        left = count * kind.itemsize
        while left:
            content = file.read(min(left, PIECE_BYTES))
            if len(content) % kind.itemsize or not content:
                raise Damaged(f"{path} was shortened while it was read. Copy it again, or run tools/preprocess again")
            left -= len(content)
            yield np.frombuffer(content, kind)


def _lengths(stretch: Stretch) -> Iterator[NDArray[np.int32]]:
    first, last = stretch.sequences
    return _read(idx_path(stretch.prefix), "<i4", HEADER.size + 4 * first, last - first)


def _starts(stretch: Stretch) -> Iterator[NDArray[np.int64]]:
    """Token at which each sequence starts, counted from the first of the stretch, int64.

    Raises:
        Damaged: the pointers in the file say otherwise than the lengths.
    """
    first, last = stretch.sequences
    index = idx_path(stretch.prefix)
    end = stretch.tokens[0]
    # as many numbers a piece as there are pointers in one
    lengths = _in_halves(_lengths(stretch))
    pointers = _read(index, "<i8", HEADER.size + 4 * stretch.sequences_in_file + 8 * first, last - first)
    for given, sizes in zip(pointers, lengths, strict=True):
        ends = end + np.cumsum(sizes, dtype=np.int64)
        starts = ends - sizes
        if bool((sizes < 0).any()) or not np.array_equal(starts * stretch.dtype.itemsize, given):
            raise Damaged(f"{index}: pointers and lengths of its sequences contradict each other. {MAKE_AGAIN}")
        yield starts - stretch.tokens[0]
        end = int(ends[-1])
    if end != stretch.tokens[1]:
        raise Damaged(f"{index}: its sequences end at token {end:,}, expected {stretch.tokens[1]:,}. {MAKE_AGAIN}")


def _in_halves(pieces: Iterator[NDArray[np.int32]]) -> Iterator[NDArray[np.int32]]:
    half = PIECE_BYTES // 8
    for piece in pieces:
        yield piece[:half]
        if len(piece) > half:
            yield piece[half:]


def _first_sequences(stretch: Stretch) -> Iterator[NDArray[np.int64]]:
    """First sequence of each document, counted from the first of the stretch, int64.

    Raises:
        Damaged: the file's document index runs backwards, or out of the stretch.
    """
    first, last = stretch.documents
    index = idx_path(stretch.prefix)
    before = stretch.sequences[0]
    for given in _read(index, "<i8", HEADER.size + 12 * stretch.sequences_in_file + 8 * first, last - first):
        if bool((np.diff(given, prepend=before) < 0).any()) or int(given[-1]) > stretch.sequences[1]:
            raise Damaged(f"{index}: its document index runs backwards or out of the dataset. {MAKE_AGAIN}")
        before = int(given[-1])
        yield given - stretch.sequences[0]


class StretchWriter:
    """Writes a dataset of stretches under temporary names; the files appear under their own with `publish`.

    Whoever uses it calls `discard` where anything fails.
    """

    def __init__(self, prefix: Path, dtype: np.dtype[Any]) -> None:
        self.prefix = prefix
        self.dtype = dtype
        self.largest_token = -1
        """Largest token written so far; -1 before the first."""
        self._stretches: list[Stretch] = []
        self._index: HashingWriter | None = None
        self._tokens = HashingWriter(temporary_path(bin_path(prefix)))

    def _sum(self, unit: str) -> int:
        return sum(last - first for first, last in (getattr(each, unit) for each in self._stretches))

    @property
    def documents(self) -> int:
        """Documents written so far."""
        return self._sum("documents")

    @property
    def sequences(self) -> int:
        """Sequences written so far."""
        return self._sum("sequences")

    @property
    def tokens(self) -> int:
        """Tokens written so far."""
        return self._sum("tokens")

    def add(
        self, stretch: Stretch, digest: "hashlib._Hash", on_progress: Callable[[int], None] = lambda read: None
    ) -> None:
        """Appends the tokens of a stretch; its type must be one whose numbers the new dataset's holds.

        Args:
            digest: takes the bytes as they lie in the file.
            on_progress: called with the number of bytes that were read since the last call.

        Raises:
            Damaged: a token id is negative, or the file ends early.
        """
        first, last = stretch.tokens
        path = bin_path(stretch.prefix)
        for piece in _read(path, stretch.dtype, first * stretch.dtype.itemsize, last - first):
            digest.update(piece.data)
            if (smallest := int(piece.min())) < 0:
                raise Damaged(f"{path} holds the negative token id {smallest}; make the dataset again")
            self.largest_token = max(self.largest_token, int(piece.max()))
            self._tokens.write(piece.astype(self.dtype, copy=False).data)
            on_progress(piece.nbytes)
        self._stretches.append(stretch)

    def finish(self) -> None:
        """Completes both files, still under their temporary names; nothing can be added afterwards."""
        self._tokens.close()
        self._index = HashingWriter(temporary_path(idx_path(self.prefix)))
        self._write_index(self._index)
        self._index.close()

    def _write_index(self, index: HashingWriter) -> None:
        index.write(HEADER.pack(MAGIC, VERSION, CODES[self.dtype], self.sequences, self.documents + 1))
        for stretch in self._stretches:
            for lengths in _lengths(stretch):
                index.write(lengths.data)
        tokens = sequences = 0
        for stretch in self._stretches:
            for starts in _starts(stretch):
                index.write(((tokens + starts) * self.dtype.itemsize).data)
            tokens += stretch.number_of_tokens
        for stretch in self._stretches:
            for first_sequences in _first_sequences(stretch):
                index.write((sequences + first_sequences).data)
            sequences += stretch.sequences[1] - stretch.sequences[0]
        index.write(sequences.to_bytes(8, "little"))

    def files(self) -> list[FileRecord]:
        """Records of `.bin` and `.idx` for a manifest, after `finish`."""
        assert self._index is not None
        return [
            FileRecord(path=path(self.prefix).name, size=file.size, sha256=file.sha256)
            for path, file in ((bin_path, self._tokens), (idx_path, self._index))
        ]

    def publish(self, manifest: Manifest) -> None:
        """Gives the finished files their names, and then the dataset its manifest; if that fails, neither is left.

        The old manifest goes first: data without a manifest is refused, data under another one's goes unnoticed.
        """
        assert self._index is not None
        own = (idx_path(self.prefix), bin_path(self.prefix))
        manifest_path(self.prefix).unlink(missing_ok=True)
        try:
            for file, path in zip((self._index, self._tokens), own, strict=True):
                file.path.replace(path)
            fsync_folder(self.prefix.parent)
            write_manifest(manifest_path(self.prefix), manifest)
        except BaseException:
            self.withdraw()
            raise

    def withdraw(self) -> None:
        """Removes the dataset after `publish`."""
        for path in (manifest_path(self.prefix), idx_path(self.prefix), bin_path(self.prefix)):
            path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes what has no name of its own yet."""
        self._tokens.discard()
        if self._index is not None:
            self._index.discard()


def place_of(prefix: Path) -> Path:
    """Where the tokens of a dataset lie, which may be there or not: one place for all links to it."""
    return bin_path(prefix).resolve()


def check_output(prefix: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Checks that a dataset may be written.

    Raises:
        TrainyardError: a manifest cannot hold its name, it is one of the inputs, or it exists and must not be replaced.
    """
    check_name_of(prefix)
    if place_of(prefix) in {place_of(each) for each in inputs}:
        raise TrainyardError(f"{prefix} is read and cannot be written; choose another name for the output")
    if not overwrite:
        for path in (bin_path(prefix), idx_path(prefix), manifest_path(prefix)):
            if path.exists():
                raise TrainyardError(f"{path} exists already; choose another name, or add --overwrite")
