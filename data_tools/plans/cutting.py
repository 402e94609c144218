"""Windows within documents."""

import numpy as np
from numpy.typing import NDArray

from data_tools.plans.extents import Stretches


def cut(documents: Stretches, window: int, stride: int, balance_last: bool) -> Stretches:
    """Cut each document into windows, none of which reaches into another document.

    Of a document of n tokens there are K = 1 if 0 < n <= window, else 1 + ceil((n - window) / stride); an empty one has
    none. Window k starts at k * stride and has `window` tokens, the last one r = n - (K - 1) * stride, more than the
    overlap of window - stride. If that is fewer than `window` and `balance_last`, it and the one before keep their
    overlap and share the rest evenly: they have ceil((r + window) / 2) and floor((r + window) / 2) tokens.

    Args:
        window: most tokens of a window.
        stride: tokens from one window to the next, from 1 to `window`.
    """
    overlap = window - stride
    counts = _windows_of(documents.lengths, window, stride)
    ends = np.cumsum(counts)
    document = np.repeat(np.arange(len(counts)), counts)
    offsets = (np.arange(len(document)) - np.repeat(ends - counts, counts)) * stride
    lengths = np.minimum(documents.lengths[document] - offsets, window)
    if balance_last:
        last = ends[counts > 1] - 1
        last = last[lengths[last] < window]
        both = lengths[last] + window
        lengths[last - 1] = (both + 1) // 2
        offsets[last] = offsets[last - 1] + lengths[last - 1] - overlap
        lengths[last] = both // 2
    return Stretches(documents.starts[document] + offsets, lengths)


def _windows_of(lengths: NDArray[np.int64], window: int, stride: int) -> NDArray[np.int64]:
    """K of each document."""
    return np.where(lengths > window, 1 - (window - lengths) // stride, (lengths > 0).astype(np.int64))
