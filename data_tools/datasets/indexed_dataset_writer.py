"""Writer of Megatron's `.bin`/`.idx` pair (MMIDIDX), byte for byte as Megatron-LM writes it, in constant memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from data_tools.datasets.growing_file import GrowingFile
from data_tools.datasets.indexed_dataset_format import CODES, HEADER, MAGIC, VERSION, appended, bin_path, idx_path
from megatron_patches.atomic_files import HashingWriter, fsync_folder, temporary_path
from megatron_patches.errors import Damaged, TrainyardError

NUMBERS_AT_ONCE = 1 << 20
LENGTHS, ENDS = ".lengths", ".ends"


class WriterMark(NamedTuple):
    """How far a writer is; its files up to there are on the disk."""

    tokens: int = 0
    sequences: int = 0
    documents: int = 0
    largest_token: int | float | None = None
    """None before the first token"""
    ends: bool = False
    """whether the ends of documents are in a file of their own, since one of them is not a single sequence"""


class IndexedDatasetWriter:
    """Writes a dataset under temporary names; both files appear under their own when all went well, or neither.

    Lengths wait in a file beside the tokens until the index is written, int32 each, so memory does not grow with the
    number of documents.

    Args:
        unfinished: prefix of the files until they have their own names; None: unique names beside them.
        mark: where the files that lie there go on; they are read once for their hash.

    Raises:
        Damaged: the files that lie there have less than the mark says.
        TrainyardError: a token does not fit the dtype, or the dtype has no code.
    """

    def __init__(
        self, prefix: Path, dtype: DTypeLike, unfinished: Path | None = None, mark: WriterMark | None = None
    ) -> None:
        self.prefix = prefix
        self.dtype = np.dtype(dtype).newbyteorder("<")
        if self.dtype not in CODES:
            raise TrainyardError(f"an indexed dataset cannot hold {self.dtype}; choose one of {list(map(str, CODES))}")
        at = mark or WriterMark()
        self.tokens, self.sequences, self.documents = at.tokens, at.sequences, at.documents
        """written so far"""
        self.largest_token = at.largest_token
        """Largest token written so far; None before the first."""
        self._index_file: HashingWriter | None = None
        self._paths = {
            ending: temporary_path(appended(prefix, ending)) if unfinished is None else appended(unfinished, ending)
            for ending in (".bin", ".idx", LENGTHS, ENDS)
        }
        self._ends: GrowingFile | None = None
        self._bin_file = GrowingFile(self._paths[".bin"], at.tokens * self.dtype.itemsize)
        self._lengths = GrowingFile(self._paths[LENGTHS], 4 * at.sequences)
        if at.ends:
            self._ends = GrowingFile(self._paths[ENDS], 8 * at.documents)

    @property
    def files(self) -> tuple[GrowingFile, HashingWriter]:
        """`.bin` and `.idx` with their hashes and sizes, after `finish`."""
        assert self._index_file is not None
        return self._bin_file, self._index_file

    def add_document(self, tokens: ArrayLike) -> None:
        """Appends one document of one sequence; it may be empty."""
        array_of_tokens = np.asarray(tokens)
        self.add_documents(array_of_tokens, [array_of_tokens.size])

    def add_documents(
        self,
        tokens: ArrayLike,
        lengths: Sequence[int] | NDArray[np.integer[Any]],
        sequences: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    ) -> None:
        """Appends documents whose tokens lie end to end.

        Args:
            tokens: [sum of lengths], of any numeric type.
            lengths: tokens of each sequence.
            sequences: sequences of each document, which may be none; None: one each.
        """
        given, sizes = np.asarray(tokens), np.asarray(lengths, dtype=np.int64)
        assert given.ndim == 1 and given.size == sizes.sum(), "lengths must cover the tokens"
        counts = None if sequences is None else np.asarray(sequences, dtype=np.int64)
        assert counts is None or counts.sum() == len(sizes), "documents must cover the sequences"
        if given.size:
            self._check_range(given)
            self._bin_file.write(np.ascontiguousarray(given, dtype=self.dtype).data)
        self._add_document_ends(len(sizes), counts)
        self._lengths.write(sizes.astype("<i4").data)
        self.tokens += given.size
        self.sequences += len(sizes)
        self.documents += len(sizes) if counts is None else len(counts)

    def _add_document_ends(self, new: int, sequences: NDArray[np.int64] | None) -> None:
        """Notes where the documents of the next `new` sequences end, once one of them is not a single sequence."""
        if self._ends is None and (sequences is None or (sequences == 1).all()):
            return
        if self._ends is None:
            self._ends = GrowingFile(self._paths[ENDS])
            for first, end in _pieces(self.sequences):
                self._ends.write(np.arange(first + 1, end + 1, dtype="<i8").data)
        counts = np.ones(new, dtype=np.int64) if sequences is None else sequences
        self._ends.write((self.sequences + np.cumsum(counts)).astype("<i8").data)

    def _check_range(self, given: NDArray[Any]) -> None:
        smallest, largest = given.min().item(), given.max().item()
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            if smallest < limits.min or largest > limits.max:
                raise TrainyardError(
                    f"document {self.documents} or one of the next has token ids from {smallest} to {largest}; "
                    f"{self.dtype.name} holds {limits.min} to {limits.max}. Use a wider dtype"
                )
        self.largest_token = largest if self.largest_token is None else max(self.largest_token, largest)

    def mark(self, on_disk: bool = True) -> WriterMark:
        """Where a writer of the same files can go on; with `on_disk` also after a crash of the machine."""
        for file in self._open_files() if on_disk else ():
            file.sync()
        return WriterMark(self.tokens, self.sequences, self.documents, self.largest_token, self._ends is not None)

    def finish(self) -> None:
        """Completes both files, still under their temporary names; nothing can be added afterwards."""
        if self._index_file is not None:
            return
        self._bin_file.sync()
        for file in self._open_files():
            file.flush()
            file.close()
        with HashingWriter(self._paths[".idx"]) as index:
            self._write_index(index)
        self._index_file = index

    def _write_index(self, index: HashingWriter) -> None:
        index.write(HEADER.pack(MAGIC, VERSION, CODES[self.dtype], self.sequences, self.documents + 1))
        for lengths in self._read(self._lengths, "<i4"):
            index.write(lengths.data)
        start = 0
        for lengths in self._read(self._lengths, "<i4"):
            sizes = lengths.astype(np.int64) * self.dtype.itemsize
            ends = start + np.cumsum(sizes)
            index.write((ends - sizes).astype("<i8").data)
            start = int(ends[-1])
        index.write(bytes(8))  # the first document starts at the first sequence
        if self._ends is not None:
            for ends in self._read(self._ends, "<i8"):
                index.write(ends.data)
            return
        for first, end in _pieces(self.sequences):
            index.write(np.arange(first + 1, end + 1, dtype="<i8").data)

    def _read(self, file: GrowingFile, dtype: str) -> Iterator[NDArray[Any]]:
        width = np.dtype(dtype).itemsize
        for first, end in _pieces(file.size // width):
            yield np.fromfile(file.path, dtype, end - first, offset=first * width)

    def _open_files(self) -> list[GrowingFile]:
        return [self._bin_file, self._lengths, *([] if self._ends is None else [self._ends])]

    def flush(self) -> None:
        """Hands what was added to the system."""
        for file in self._open_files():
            file.flush()

    def close(self) -> None:
        """Closes the files as they are, to go on from a mark."""
        for file in self._open_files():
            file.close()

    def discard(self) -> None:
        """Removes what was written."""
        self.close()
        for path in self._paths.values():
            path.unlink(missing_ok=True)

    def publish(self) -> None:
        """Gives both finished files their own names."""
        self.finish()
        publish_files(self._paths[".bin"], self._paths[".idx"], self.prefix)
        for ending in (LENGTHS, ENDS):
            self._paths[ending].unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.discard()
            return
        try:
            self.publish()
        except BaseException:
            self.discard()
            raise


def publish_files(tokens: Path, index: Path, prefix: Path) -> None:
    """Gives finished files a dataset's names; called again after a kill it does what is left to do.

    Raises:
        Damaged: a file has neither name.
    """
    for unfinished, path in ((index, idx_path(prefix)), (tokens, bin_path(prefix))):
        if unfinished.exists():
            unfinished.replace(path)
        elif not path.exists():
            raise Damaged(f"{unfinished} is gone; start again with --overwrite")
    fsync_folder(prefix.parent)


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    for first in range(0, count, NUMBERS_AT_ONCE):
        yield first, min(first + NUMBERS_AT_ONCE, count)
