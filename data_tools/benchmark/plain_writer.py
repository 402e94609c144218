"""`.bin/.idx` as peers write them: every length in memory, no hashes, nothing waited for on the disk."""

from pathlib import Path
from typing import Any

import numpy as np

from data_tools.datasets.indexed_dataset_format import CODES, HEADER, MAGIC, VERSION, bin_path, idx_path


def write_index(prefix: Path, dtype: np.dtype[Any], lengths: np.ndarray[Any, np.dtype[np.int64]]) -> None:
    """The index of a dataset; a document without tokens (length 0) has no sequence.

    Args:
        lengths: int64[documents], in tokens.
    """
    sequences = lengths[lengths > 0]
    ends = np.cumsum(sequences) * dtype.itemsize
    documents = np.concatenate([[0], np.cumsum(lengths > 0)])
    with idx_path(prefix).open("wb") as file:
        file.write(HEADER.pack(MAGIC, VERSION, CODES[dtype], len(sequences), len(documents)))
        file.write(sequences.astype("<i4").tobytes())
        file.write((ends - sequences * dtype.itemsize).astype("<i8").tobytes())
        file.write(documents.astype("<i8").tobytes())


class PlainWriter:
    """One document after the other."""

    def __init__(self, prefix: Path, dtype: np.dtype[Any]) -> None:
        self._prefix, self._dtype = prefix, dtype
        self._file = bin_path(prefix).open("wb")
        self._lengths: list[int] = []

    def add(self, ids: list[int]) -> None:
        """A document; it may be empty."""
        self._file.write(np.array(ids, dtype=self._dtype).tobytes())
        self._lengths.append(len(ids))

    def finish(self) -> None:
        """Closes the `.bin` and writes the `.idx`."""
        self._file.close()
        write_index(self._prefix, self._dtype, np.array(self._lengths, dtype=np.int64))
