"""Characters that are letters, marks or digits in one version of Unicode and unassigned in the one before."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Letters, marks and digits of Unicode 17.0 (2025): gigatoken 0.10.0 knows them, tokenizers 0.23.3 and fastokens 0.3.5
# have the tables of 16.0, so that a pattern such as \p{L}+ cuts a text elsewhere. All 1,112,064 code points were
# compared on the patterns of GPT-2, Llama 3 and o200k: `python -m tests.torture.characters`.
_RANGES = (
    (0x088F, 0x088F), (0x0C5C, 0x0C5C), (0x0CDC, 0x0CDC), (0x1ACF, 0x1ADD), (0x1AE0, 0x1AEB), (0xA7CE, 0xA7CF),
    (0xA7D2, 0xA7D2), (0xA7D4, 0xA7D4), (0xA7F1, 0xA7F1), (0x10940, 0x10959), (0x10EC5, 0x10EC7), (0x10EFA, 0x10EFB),
    (0x11B60, 0x11B67), (0x11DB0, 0x11DDB), (0x11DE0, 0x11DE9), (0x16EA0, 0x16EB8), (0x16EBB, 0x16ED3),
    (0x16FF2, 0x16FF6), (0x187F8, 0x187FF), (0x18D09, 0x18D1E), (0x18D80, 0x18DF2), (0x1E6C0, 0x1E6DE),
    (0x1E6E0, 0x1E6F5), (0x1E6FE, 0x1E6FF), (0x2B73A, 0x2B73F), (0x2CEA2, 0x2CEAD), (0x323B0, 0x33479),
)  # fmt: skip
_LOWEST = _RANGES[0][0]


_SHORT = 2000
"""mean characters of a text below which texts are looked through all at once: a call for each takes 2 µs"""


class RecentCharacters:
    """Finds texts that hold such characters: 2 ns for each character of a text that is not ASCII."""

    def __init__(self) -> None:
        self._units: NDArray[np.bool_] = np.zeros(0x10000, np.bool_)
        """whether a unit of UTF-16 is such a character, or begins the pair of one (and of up to 1,023 others)"""
        self._recent: NDArray[np.bool_] = np.zeros(0x110000, np.bool_)
        for first, last in _RANGES:
            self._recent[first : last + 1] = True
            units = np.frombuffer("".join(map(chr, range(first, last + 1))).encode("utf-16-le"), "<u2")
            self._units[units[:: 1 if last < 0x10000 else 2]] = True

    def holders(self, texts: Sequence[str]) -> list[int]:
        """Which of the texts hold any."""
        others = [index for index, text in enumerate(texts) if not text.isascii()]
        if sum(len(texts[index]) for index in others) < _SHORT * len(others):
            joined = "".join(texts[index] for index in others)
            if not self._may_hold(joined):
                return []
        return [index for index in others if self._may_hold(texts[index]) and self._holds(texts[index])]

    def _may_hold(self, text: str) -> bool:
        units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")
        return bool(units.max() >= _LOWEST and self._units.take(units).any())

    def _holds(self, text: str) -> bool:
        return bool(self._recent[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")].any())
