"""A stream of tokens read in windows, and the order in which a run reads them: arithmetic, no index files."""

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.permutation import permute
from data_tools.samples.source import Sample
from megatron_patches.errors import Damaged, TrainyardError


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
        self._tokens = dataset.tokens[first:last]

    @property
    def tokens(self) -> int:
        """Tokens in these documents."""
        return len(self._tokens)

    def __len__(self) -> int:
        return max(0, self.tokens - self.lengths.read + self.lengths.stride) // self.lengths.stride

    def __getitem__(self, number: int) -> Sample:
        """Raises IndexError where there is no such window."""
        if not 0 <= number < len(self):
            raise IndexError(f"window {number} of {len(self)}")
        start = int(number) * self.lengths.stride
        return {"tokens": self._tokens[start : start + self.lengths.read].astype(np.int64)}


class TrainingOrder:
    """Which of a source's samples is read when: a pure function of (seed, epoch, index), the same on every layout."""

    def __init__(self, source_length: int, seed: int) -> None:
        if source_length < 1:
            raise TrainyardError("there are no samples to order; the training split is shorter than one sample")
        self._length = source_length
        self._seed = seed

    def numbers(self, sample_indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers in the source.

        Args:
            sample_indices: places in the run's order of samples, [n]; place i belongs to epoch i // length, and every
                epoch has every sample of the source once, in an order of its own.

        Returns:
            int64 [n].
        """
        epochs, positions = np.divmod(np.asarray(sample_indices, dtype=np.int64), self._length)
        order = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            order[here] = permute(positions[here], self._length, key=(self._seed, epoch))
        return order
