"""A stream of tokens read in windows: arithmetic, no index files."""

import numpy as np

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.source import Sample
from megatron_patches.errors import Damaged


class TokenWindows:
    """The tokens of a range of documents, cut into windows: a source of samples that are `{"tokens": int64 [read]}`.

    Window w starts at token w * stride. Of a model that predicts the next token, windows of sequence_length + 1 share
    their last token with the next one's first, so that each token but the very first is a target exactly once an epoch.
    What is left at the end for no whole window is left out.
    """

    def __init__(self, dataset: IndexedDataset, documents: tuple[int, int], lengths: SampleLengths) -> None:
        self.lengths = lengths
        first, last = (dataset.document_token_offset(document) for document in documents)
        if first > last:
            raise Damaged(
                f"{dataset.idx_path}: document {documents[1]} starts at token {last:,}, before document {documents[0]} "
                f"at {first:,}; copy the dataset again, or run tools/preprocess again"
            )
        self._first = first
        self._tokens = dataset.tokens[first:last]

    @property
    def tokens(self) -> int:
        """Tokens in these documents."""
        return len(self._tokens)

    def __len__(self) -> int:
        return max(0, self.tokens - self.lengths.read + self.lengths.stride) // self.lengths.stride

    def __getitem__(self, number: int) -> Sample:
        """Raises IndexError where there is no such window."""
        start = self._start(number)
        return {"tokens": self._tokens[start : start + self.lengths.read].astype(np.int64)}

    def stretches(self, number: int) -> list[tuple[int, int]]:
        """The tokens of the dataset, [first, end), that a window is made of; raises IndexError as reading it does."""
        start = self._first + self._start(number)
        return [(start, start + self.lengths.read)]

    def _start(self, number: int) -> int:
        if not 0 <= number < len(self):
            raise IndexError(f"window {number} of {len(self)}")
        return int(number) * self.lengths.stride
