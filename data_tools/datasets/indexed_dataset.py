"""Reader of Megatron's `.bin`/`.idx` pair (MMIDIDX); `indexed_dataset_writer` writes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.answers import AnswerCounts, AnswerIndex
from data_tools.datasets.indexed_dataset_format import (
    HEADER,
    MAKE_AGAIN,
    bin_path,
    check_files_exist,
    idx_path,
    read_header,
)
from megatron_patches.errors import Damaged
from megatron_patches.foreign.mapped import map_file

# Opening compares this many neighbouring pointers, spread over the index: a constant cost for any number of documents.
POINTERS_CHECKED_AT_OPEN = 1024


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
