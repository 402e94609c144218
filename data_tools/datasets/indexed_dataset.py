"""Reader and writer of Megatron's `.bin`/`.idx` pair (MMIDIDX), byte-compatible in both directions."""

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from data_tools.datasets.answers import AnswerCounts, AnswerIndex
from data_tools.datasets.indexed_dataset_format import (
    CODES,
    HEADER,
    MAGIC,
    MAKE_AGAIN,
    VERSION,
    bin_path,
    check_files_exist,
    idx_path,
    read_header,
)
from megatron_patches.atomic_files import HashingWriter, fsync_folder, temporary_path
from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.foreign.mapped import map_file

# Opening compares this many neighbouring pointers, spread over the index: a constant cost for any number of documents.
POINTERS_CHECKED_AT_OPEN = 1024
SEQUENCES_PER_INDEX_CHUNK = 1 << 20


def best_dtype(vocab_size: int) -> np.dtype[Any]:
    """The type Megatron writes for a vocabulary: uint16 below 65,500 ids, else int32."""
    return np.dtype("<u2") if vocab_size < 65500 else np.dtype("<i4")


class IndexedDataset:
    """A dataset on disk, opened by memory map.

    Opening costs the same for a thousand tokens and for a trillion: sizes, counts, ends and a sample of the pointers
    are checked; `scan.scan` reads everything. What is read later is checked where it is read.

    Raises:
        TrainyardError: a file is missing, empty, truncated, of another format, or the pair does not belong together.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.bin_path = bin_path(prefix)
        self.idx_path = idx_path(prefix)
        check_files_exist(self.bin_path, self.idx_path)
        header = read_header(self.idx_path)
        self.dtype = header.dtype
        lengths_end = HEADER.size + 4 * header.sequences
        pointers_end = lengths_end + 8 * header.sequences
        index = map_file(self.idx_path)[: header.bytes]
        self.sequence_lengths: NDArray[np.int32] = index[HEADER.size : lengths_end].view("<i4")
        """Tokens of each sequence, int32 [sequences]."""
        self.sequence_pointers: NDArray[np.int64] = index[lengths_end:pointers_end].view("<i8")
        """First byte of each sequence in the `.bin`, int64 [sequences]."""
        self.document_indices: NDArray[np.int64] = index[pointers_end:].view("<i8")
        """First sequence of each document, and at the end the number of sequences, int64 [documents + 1]."""
        self._check_ends()
        self._check_sampled_pointers()
        self.tokens: NDArray[Any] = map_file(self.bin_path).view(self.dtype)
        """All tokens in file order, [tokens], read-only."""

    def _check_ends(self) -> None:
        first, last = int(self.document_indices[0]), int(self.document_indices[-1])
        if first != 0 or last != len(self):
            raise Damaged(
                f"{self.idx_path}: the document index runs from {first} to {last}, expected 0 to {len(self)} "
                f"(the number of sequences). {MAKE_AGAIN}"
            )
        if int(self.sequence_lengths[-1]) < 0:
            raise Damaged(f"{self.idx_path}: the last sequence has {self.sequence_lengths[-1]} tokens. {MAKE_AGAIN}")
        expected = int(self.sequence_pointers[-1]) + int(self.sequence_lengths[-1]) * self.dtype.itemsize
        if expected % self.dtype.itemsize:
            raise Damaged(
                f"{self.idx_path}: the last sequence ends at byte {expected:,}, which is no multiple of the "
                f"{self.dtype.itemsize} bytes of {self.dtype.name}. {MAKE_AGAIN}"
            )
        found = self.bin_path.stat().st_size
        if found != expected:
            state = "truncated" if found < expected else "longer than its index says"
            raise Damaged(
                f"{self.bin_path} is {state}: {found:,} bytes found, {expected:,} expected from {self.idx_path.name} "
                f"({len(self):,} sequences of {self.dtype.name}). Copy both files again from the same place, or "
                "run tools/preprocess again"
            )

    def _check_sampled_pointers(self) -> None:
        chosen = np.unique(np.linspace(0, len(self) - 2, POINTERS_CHECKED_AT_OPEN).astype(np.int64).clip(0))
        self.check_pointers(chosen[chosen < len(self) - 1])
        if int(self.sequence_pointers[0]) != 0:
            raise Damaged(
                f"{self.idx_path}: the first sequence starts at byte {int(self.sequence_pointers[0])}, expected 0. "
                f"{MAKE_AGAIN}"
            )

    def check_pointers(self, sequences: NDArray[np.int64]) -> None:
        """Checks that each of these sequences ends where the next one starts, as windows over the tokens need it.

        Raises:
            TrainyardError: there is a gap or an overlap; the first one is named.
        """
        starts, lengths = self.sequence_pointers[sequences], self.sequence_lengths[sequences]
        ends = starts + lengths.astype(np.int64) * self.dtype.itemsize
        # a negative start or length: without it, sums that wrap around could pass
        wrong = np.flatnonzero((ends != self.sequence_pointers[sequences + 1]) | (lengths < 0) | (starts < 0))
        if wrong.size:
            sequence = int(sequences[wrong[0]])
            raise Damaged(
                f"{self.idx_path}: sequence {sequence} ends at byte {int(ends[wrong[0]])}, the next one starts at byte "
                f"{int(self.sequence_pointers[sequence + 1])}; expected no gap. {MAKE_AGAIN}"
            )

    @property
    def number_of_documents(self) -> int:
        """Documents, empty ones included."""
        return len(self.document_indices) - 1

    def __len__(self) -> int:
        return len(self.sequence_lengths)

    def __getitem__(self, sequence: int) -> NDArray[Any]:
        """The tokens of one sequence, a read-only view of the file, [length]."""
        start = self._token_offset(sequence)
        end = start + int(self.sequence_lengths[sequence])
        if not start <= end <= len(self.tokens):
            raise Damaged(f"{self.idx_path}: sequence {sequence} has {end - start} tokens. {MAKE_AGAIN}")
        return self.tokens[start:end]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[sequence] for sequence in range(len(self)))

    def document_token_offset(self, document: int) -> int:
        """Tokens before a document; the number of documents itself gives the number of tokens.

        Raises:
            IndexError: there is no such document.
            Damaged: the index names a place for it that the dataset does not have.
        """
        if not 0 <= document <= self.number_of_documents:
            raise IndexError(f"document {document} of {self.number_of_documents}")
        sequence = int(self.document_indices[document])
        if not 0 <= sequence <= len(self):
            raise Damaged(
                f"{self.idx_path}: document {document} starts at sequence {sequence} of {len(self)}. {MAKE_AGAIN}"
            )
        return len(self.tokens) if sequence == len(self) else self._token_offset(sequence)

    def _token_offset(self, sequence: int) -> int:
        """Tokens before a sequence."""
        byte = int(self.sequence_pointers[sequence])
        start, rest = divmod(byte, self.dtype.itemsize)
        if rest or not 0 <= start <= len(self.tokens):
            raise Damaged(
                f"{self.idx_path}: sequence {sequence} starts at byte {byte}, which is no token of "
                f"{self.bin_path.name}. {MAKE_AGAIN}"
            )
        return start

    def document_boundaries(self, document: int) -> NDArray[np.int64]:
        """Where the sequences of a document lie among the tokens: int64 [sequences + 1], sequence k being the tokens
        from boundary k to boundary k + 1. Of a record with answers the odd-numbered ones are the answers.

        Raises:
            IndexError: there is no such document.
            Damaged: the index names a place for it that the dataset does not have.
        """
        start, end = (self.document_token_offset(each) for each in (document, document + 1))
        first, last = (int(self.document_indices[each]) for each in (document, document + 1))
        starts = self.sequence_pointers[first:last] // self.dtype.itemsize
        boundaries = np.append(starts, end)
        if int(boundaries[0]) != start or (np.diff(boundaries) < 0).any():
            raise Damaged(f"{self.idx_path}: the sequences of document {document} are in no order. {MAKE_AGAIN}")
        return boundaries

    def answers(self, first_token: int, count: int) -> NDArray[np.bool_]:
        """Which of the tokens [first_token, first_token + count) lie in odd-numbered sequences of their documents,
        bool [count]. It takes O(log n) reads of the index, and memory for the index of these tokens alone.

        Raises:
            IndexError: the dataset has no such tokens.
            Damaged: the sequences do not cover these tokens.
        """
        if not 0 <= first_token <= first_token + count <= len(self.tokens):
            raise IndexError(f"tokens {first_token} to {first_token + count} of {len(self.tokens)}")
        return self._answer_index.mask(first_token, count)

    def count_answers(self, first: int = 0, end: int | None = None) -> AnswerCounts:
        """Answers among the sequences [first, end), by default among all, and their tokens; it reads their index."""
        return self._answer_index.counts(first, len(self) if end is None else end)

    @property
    def _answer_index(self) -> AnswerIndex:
        return AnswerIndex(
            self.sequence_lengths, self.sequence_pointers, self.document_indices, self.dtype.itemsize, self.idx_path
        )

    def document_lengths(self, first: int, last: int) -> NDArray[np.int64]:
        """Tokens of the documents [first, last), int64 [last - first].

        Raises:
            Damaged: the index runs backwards or out of the dataset; the first such document is named.
        """
        boundaries = self.document_indices[first : last + 1]
        self._check_increasing(boundaries, first, "sequence", len(self))
        inside = boundaries < len(self)
        offsets = np.full(len(boundaries), len(self.tokens), dtype=np.int64)
        offsets[inside] = self.sequence_pointers[boundaries[inside]] // self.dtype.itemsize
        self._check_increasing(offsets, first, "token", len(self.tokens))
        return np.diff(offsets)

    def _check_increasing(self, starts: NDArray[np.int64], first: int, unit: str, end: int) -> None:
        """Checks that the documents from `first` on start in order, and none past the end."""
        outside = np.flatnonzero((starts < 0) | (starts > end))
        if outside.size:
            document = int(outside[0])
            raise Damaged(
                f"{self.idx_path}: document {first + document} starts at {unit} {starts[document]} of {end}. "
                f"{MAKE_AGAIN}"
            )
        backwards = np.flatnonzero(starts[1:] < starts[:-1])
        if backwards.size:
            document = int(backwards[0])
            raise Damaged(
                f"{self.idx_path}: document {first + document} starts at {unit} {starts[document]} and the next one at "
                f"{starts[document + 1]}. {MAKE_AGAIN}"
            )


class IndexedDatasetWriter:
    """Writes a dataset under temporary names; both files appear under their own when all went well, or neither.

    Raises:
        TrainyardError: a token does not fit the dtype, or the dtype has no code.
    """

    def __init__(self, prefix: Path, dtype: DTypeLike) -> None:
        self.prefix = prefix
        self.dtype = np.dtype(dtype).newbyteorder("<")
        if self.dtype not in CODES:
            raise TrainyardError(f"an indexed dataset cannot hold {self.dtype}; choose one of {list(map(str, CODES))}")
        self.tokens = 0
        """Tokens written so far."""
        self.largest_token: int | float | None = None
        """Largest token written so far; None before the first."""
        self._lengths = array("i")
        self._document_ends: array[int] | None = None  # while every document is one sequence, their lengths say it all
        self._index_file: HashingWriter | None = None
        self._bin_file = HashingWriter(temporary_path(bin_path(prefix)))

    @property
    def documents(self) -> int:
        """Documents written so far."""
        return len(self._lengths) if self._document_ends is None else len(self._document_ends)

    @property
    def sequences(self) -> int:
        """Sequences written so far."""
        return len(self._lengths)

    @property
    def files(self) -> tuple[HashingWriter, HashingWriter]:
        """`.bin` and `.idx` with their hashes and sizes, after `finish`."""
        assert self._index_file is not None
        return self._bin_file, self._index_file

    def add_document(self, tokens: ArrayLike) -> None:
        """Appends one document of one sequence; it may be empty."""
        array_of_tokens = np.asarray(tokens)
        self.add_documents(array_of_tokens, [array_of_tokens.size])

    def add_documents(self, tokens: ArrayLike, lengths: Sequence[int], sequences: Sequence[int] | None = None) -> None:
        """Appends documents whose tokens lie end to end.

        Args:
            tokens: [sum of lengths], of any numeric type.
            lengths: tokens of each sequence.
            sequences: sequences of each document, which may be none; None: one each.
        """
        given = np.asarray(tokens)
        assert given.ndim == 1 and given.size == sum(lengths), "lengths must cover the tokens"
        assert sequences is None or sum(sequences) == len(lengths), "documents must cover the sequences"
        if given.size:
            self._check_range(given)
            self._bin_file.write(np.ascontiguousarray(given, dtype=self.dtype).data)
        self._add_document_ends(len(lengths), sequences)
        self._lengths.extend(lengths)
        self.tokens += given.size

    def _add_document_ends(self, new: int, sequences: Sequence[int] | None) -> None:
        """Notes where the documents of the next `new` sequences end, once one of them is not a single sequence."""
        before = len(self._lengths)
        if self._document_ends is None and (sequences is None or all(each == 1 for each in sequences)):
            return
        if self._document_ends is None:
            self._document_ends = array("q", range(1, before + 1))
        ends = accumulate(sequences if sequences is not None else [1] * new, initial=before)
        self._document_ends.extend(islice(ends, 1, None))

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

    def finish(self) -> None:
        """Completes both files, still under their temporary names; nothing can be added afterwards."""
        if self._index_file is not None:
            return
        self._bin_file.close()
        with HashingWriter(temporary_path(idx_path(self.prefix))) as index:
            self._write_index(index)
        self._index_file = index

    def _write_index(self, index: HashingWriter) -> None:
        lengths = np.frombuffer(self._lengths, dtype=np.intc).astype("<i4", copy=False)
        sequences = len(lengths)
        index.write(HEADER.pack(MAGIC, VERSION, CODES[self.dtype], sequences, self.documents + 1))
        index.write(lengths.data)
        start = 0
        for first in range(0, sequences, SEQUENCES_PER_INDEX_CHUNK):
            sizes = lengths[first : first + SEQUENCES_PER_INDEX_CHUNK].astype(np.int64) * self.dtype.itemsize
            ends = start + np.cumsum(sizes)
            index.write((ends - sizes).astype("<i8").data)
            start = int(ends[-1])
        if self._document_ends is not None:
            index.write(bytes(8))  # the first document starts at the first sequence
            index.write(np.frombuffer(self._document_ends, dtype=np.int64).astype("<i8", copy=False).data)
            return
        for first in range(0, sequences + 1, SEQUENCES_PER_INDEX_CHUNK):
            index.write(np.arange(first, min(first + SEQUENCES_PER_INDEX_CHUNK, sequences + 1), dtype="<i8").data)

    def discard(self) -> None:
        """Removes what was written."""
        self._bin_file.discard()
        if self._index_file is not None:
            self._index_file.discard()

    def publish(self) -> None:
        """Gives both finished files their own names."""
        self.finish()
        tokens, index = self.files
        index.path.replace(idx_path(self.prefix))
        tokens.path.replace(bin_path(self.prefix))
        fsync_folder(self.prefix.parent)

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
