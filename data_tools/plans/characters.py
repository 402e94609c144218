"""How many characters of which classes a token stands for: one row of a table each, so that no text is decoded.

A character is counted where the first byte of its UTF-8 lies, so sums over tokens are exact however a character is
split. Its class is known where one token holds all of its bytes; one that is split over several tokens counts as a
letter: neither punctuation, nor upper case.
"""

import unicodedata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_tools.plans.extents import Stretches
from data_tools.plans.sums import sums
from data_tools.text.tokenizers import load_tokenizer
from megatron_patches.errors import Damaged
from megatron_patches.foreign.printable import printable

COUNTED = ("characters", "punctuation", "non_alphanumeric", "upper_case")
"""columns of the counts"""


def count_characters(text: bytes) -> tuple[int, int, int, int]:
    """The `COUNTED` of some bytes of UTF-8, which may begin and end within a character."""
    characters = sum(byte & 0xC0 != 0x80 for byte in text)
    whole = text.decode("utf-8", errors="ignore")
    return (
        characters,
        sum(unicodedata.category(each).startswith("P") for each in whole),
        sum(not each.isalnum() for each in whole),
        sum(each.isupper() for each in whole),
    )


class CharacterTable:
    """Counts of each token.

    Args:
        tokenizer: its folder, or a SentencePiece `.model`.

    Raises:
        TrainyardError: it is missing or damaged, or which bytes its tokens stand for is not known.
    """

    def __init__(self, tokenizer: Path) -> None:
        # the caller, who opened the data, decided whether a tokenizer marked invalid may be used
        spelled = load_tokenizer(tokenizer, allow_invalid=True).token_bytes()
        self.tokenizer = tokenizer
        self.counts: NDArray[np.int64] = np.zeros((len(COUNTED), max(spelled) + 1), dtype=np.int64)
        """int64 [4, tokens]"""
        for token, text in spelled.items():
            self.counts[:, token] = count_characters(text)


class CharacterCounts:
    """Counts over stretches of tokens that were made with a tokenizer.

    Args:
        tokens: [tokens]; they may be mapped.
        origin: where they lie, for errors.
    """

    def __init__(self, table: CharacterTable, tokens: NDArray[np.integer], origin: object) -> None:
        self._table = table
        self._tokens = tokens
        self._origin = origin

    def of(self, stretches: Stretches) -> NDArray[np.int64]:
        """The `COUNTED` of each of n stretches, in file order and none of them empty: int64 [4, n].

        Raises:
            Damaged: there is a token that the tokenizer does not have.
        """
        return sums(stretches, self._look_up, len(COUNTED))

    def _look_up(self, runs: Stretches) -> NDArray[np.int64]:
        table = self._table.counts
        pieces = zip(runs.starts.tolist(), runs.ends.tolist(), strict=True)
        together = np.concatenate([self._tokens[start:end] for start, end in pieces])
        smallest, largest = int(together.min()), int(together.max())
        if smallest < 0 or largest >= table.shape[1]:
            raise Damaged(
                f"{self._origin} holds token {largest if smallest >= 0 else smallest}, tokenizer "
                f"{printable(self._table.tokenizer)} has {table.shape[1]:,}: the dataset is damaged, or was made with "
                "another tokenizer; copy it again, or run tools/preprocess again"
            )
        return table.take(together, axis=1)  # twice as fast as an index in brackets
