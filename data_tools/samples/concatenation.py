"""Several sources read one after the other as one."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from data_tools.samples.source import Sample, SampleSource


class Concatenation:
    """A source whose samples are those of the first part, then those of the second, and so on."""

    def __init__(self, parts: Sequence[SampleSource]) -> None:
        self.parts = parts
        self._firsts = list(accumulate((len(part) for part in parts), initial=0))
        """number of each part's first sample, and of all samples"""

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, number: int) -> Sample:
        """Raises IndexError where there is no such sample."""
        part, inside = self.find(number)
        return self.parts[part][inside]

    def find(self, number: int) -> tuple[int, int]:
        """Part of a sample, and its number there; raises IndexError where there is no such sample."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        part = bisect_right(self._firsts, number) - 1
        return part, number - self._firsts[part]
