"""A stream of tokens read in windows, and the order in which a run reads them: arithmetic, no index files."""

import numpy as np
from numpy.typing import NDArray

from data_tools.errors import TrainyardError
from data_tools.indexed_dataset import IndexedDataset
from data_tools.permutation import permute


class TokenWindows:
    """The tokens of a range of documents, cut into windows of sequence_length + 1.

    Window w starts at token w * sequence_length and shares its last token with the next one's first, so that each
    token but the very first is a target exactly once an epoch. Up to sequence_length tokens at the end are left out.
    """

    def __init__(self, dataset: IndexedDataset, documents: tuple[int, int], sequence_length: int) -> None:
        self.sequence_length = sequence_length
        first, last = (dataset.document_token_offset(document) for document in documents)
        self._tokens = dataset.tokens[first:last]

    @property
    def tokens(self) -> int:
        """Tokens in these documents."""
        return len(self._tokens)

    def __len__(self) -> int:
        return max(0, self.tokens - 1) // self.sequence_length

    def __getitem__(self, window: int) -> NDArray[np.int64]:
        """Token ids, int64 [sequence_length + 1]; inputs are all but the last, targets all but the first.

        Raises:
            IndexError: there is no such window.
        """
        if not 0 <= window < len(self):
            raise IndexError(f"window {window} of {len(self)}")
        start = int(window) * self.sequence_length
        return self._tokens[start : start + self.sequence_length + 1].astype(np.int64)


class TrainingOrder:
    """Which window each training sample reads: a pure function of (seed, epoch, index), the same on every layout."""

    def __init__(self, windows: int, seed: int) -> None:
        if windows < 1:
            raise TrainyardError("there are no windows to order; the training split is shorter than one window")
        self._windows = windows
        self._seed = seed

    def windows(self, sample_indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Windows of these samples.

        Args:
            sample_indices: samples since the start of the run, [n]; sample i belongs to epoch i // windows, and
                every epoch reads every window once, in an order of its own.

        Returns:
            int64 [n].
        """
        epochs, positions = np.divmod(np.asarray(sample_indices, dtype=np.int64), self._windows)
        order = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            order[here] = permute(positions[here], self._windows, key=(self._seed, epoch))
        return order
