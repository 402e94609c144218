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


class RecentCharacters:
    """Finds texts that hold such characters: 2 to 9 ns for each character of a text that is not ASCII."""

    def __init__(self) -> None:
        self._recent: NDArray[np.bool_] = np.zeros(0x110000, np.bool_)
        for first, last in _RANGES:
            self._recent[first : last + 1] = True

    def holders(self, texts: Sequence[str]) -> list[int]:
        """Which of the texts hold any."""
        others = [index for index, text in enumerate(texts) if not text.isascii()]
        # All at once first: a call for each takes 2 µs.
        if not others or not self._in("".join(texts[index] for index in others)):
            return []
        return [index for index in others if self._in(texts[index])]

    def _in(self, text: str) -> bool:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        return bool(codes.max() >= _LOWEST and self._recent[codes].any())
