"""Where samples come from: anything with an item for each number, and mostly a length."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Sample = Mapping[str, NDArray[np.int64]]
"""arrays by name, of the same shapes for each sample of a source, int64 [read]:
`tokens` are ids of the tokenizer;
`segments`, where a sample is made of several texts or is not full: number of each token's text, -1 for padding;
`answers`, where only a part of the tokens is to be predicted: 1 for those"""


class SampleSource(Protocol):
    """Samples by number. Each is a pure function of its number, so that any rank may read any sample at any time."""

    def __len__(self) -> int:
        """How many there are; an epoch reads each once."""

    def __getitem__(self, number: int) -> Sample:
        """One of them. Raises IndexError where there is none of this number."""


class SampleStream(Protocol):
    """Samples by number, as many as are asked for: the order in which they are trained on is their own.

    Each is a pure function of its number, but one after the other is how they are read fast.
    """

    def __getitem__(self, number: int) -> Sample:
        """One of them. Raises TrainyardError where its text cannot be read."""
