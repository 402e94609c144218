"""Token ids of documents, held in memory."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.plans.extents import Stretches
from data_tools.text.document_encoding import EncodedTexts


class TokenDocuments(NamedTuple):
    """Documents, in order."""

    tokens: NDArray[np.integer]
    """of all of them, end to end, [tokens]"""
    lengths: NDArray[np.int64]
    """tokens of each, int64 [documents]"""
    answers: NDArray[np.bool_] | None
    """which of the tokens are to be predicted, bool [tokens]; None: all"""

    @property
    def ends(self) -> NDArray[np.int64]:
        """Tokens up to the end of each, int64 [documents]."""
        return np.cumsum(self.lengths)

    def stretches(self) -> Stretches:
        """Where those that are not empty lie."""
        return Stretches(self.ends - self.lengths, self.lengths).where(self.lengths > 0)

    def between(self, first: int, end: int) -> "TokenDocuments":
        """The documents [first, end), without a copy."""
        if first == 0 and end >= len(self.lengths):
            return self
        begin = int(self.lengths[:first].sum())
        tokens = slice(begin, begin + int(self.lengths[first:end].sum()))
        answers = None if self.answers is None else self.answers[tokens]
        return TokenDocuments(self.tokens[tokens], self.lengths[first:end], answers)

    def in_order(self, order: NDArray[np.int64]) -> "TokenDocuments":
        """The same documents in another order: their numbers, [documents]."""
        ends = self.ends
        each = list(zip((ends - self.lengths)[order].tolist(), ends[order].tolist(), strict=True))
        tokens = np.concatenate([self.tokens[start:end] for start, end in each])
        answers = self.answers
        moved = None if answers is None else np.concatenate([answers[start:end] for start, end in each])
        return TokenDocuments(tokens, self.lengths[order], moved)


def together(documents: Sequence[TokenDocuments]) -> TokenDocuments:
    """One after the other; at least one."""
    if len(documents) == 1:
        return documents[0]
    answers = [each.answers for each in documents if each.answers is not None]
    return TokenDocuments(
        np.concatenate([each.tokens for each in documents]),
        np.concatenate([each.lengths for each in documents]),
        np.concatenate(answers) if answers else None,
    )


def documents_of(texts: EncodedTexts, answers: bool) -> TokenDocuments:
    """What an encoder made, as documents.

    Args:
        answers: whether the odd-numbered sequences of each document are answers.
    """
    if texts.sequences is None and not answers:
        return TokenDocuments(texts.tokens, texts.lengths, None)
    lengths = np.diff(texts.document_ends(), prepend=0)
    if not answers:
        return TokenDocuments(texts.tokens, lengths, None)
    sequences = np.ones(len(lengths), dtype=np.int64) if texts.sequences is None else texts.sequences
    firsts = np.cumsum(sequences) - sequences
    odd = (np.arange(len(texts.lengths)) - np.repeat(firsts, sequences)) % 2 == 1
    return TokenDocuments(texts.tokens, lengths, np.repeat(odd, texts.lengths))
