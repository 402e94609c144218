"""Which documents of a dataset a source of samples reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Selection(Protocol):
    """Documents of one dataset, in file order."""

    @property
    def name(self) -> str:
        """What is selected, exactly and on any machine: two selections of a dataset with one name are the same."""

    def blocks(self, size: int) -> Iterator[NDArray[np.int64]]:
        """Numbers of the documents, ascending, at most `size` at a time: int64 [n]."""


@dataclass(frozen=True)
class DocumentRange:
    """The documents [first, end) of the file."""

    first: int
    end: int

    @property
    def name(self) -> str:
        """See `Selection`."""
        return f"documents {self.first}:{self.end}"

    def blocks(self, size: int) -> Iterator[NDArray[np.int64]]:
        """See `Selection`."""
        for first in range(self.first, self.end, size):
            yield np.arange(first, min(first + size, self.end), dtype=np.int64)
