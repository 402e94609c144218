"""Documents to token ids by the reference: the tokenizer as it stands."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from data_tools.text.tokenizer import Tokenizer

Texts = tuple[str, ...]
"""the texts of one document, one for each key"""


class TextEncoder(Protocol):
    """How texts become ids where that is more than the tokenizer alone does. Processes get it by pickle."""

    def encode(self, tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], Sequence[Any]]:
        """Ids of each text, and what there is to note of each."""


class EncodedTexts(NamedTuple):
    """The texts of one key in one chunk of documents."""

    tokens: NDArray[Any]
    """All tokens end to end: uint16 where every id of the vocabulary fits, else int32; see `ids_type`."""
    lengths: NDArray[np.int64]
    """Tokens of each sequence, its end-of-document token included."""
    empty: NDArray[np.int64]
    """Numbers, within the chunk, of the documents whose text gave no token."""
    sequences: NDArray[np.int64] | None = None
    """Sequences of each document; None: one each. A text that gave no token has none, as Megatron-LM writes it."""
    notes: list[list[Any]] | None = None
    """What a `TextEncoder` noted of the texts of each document; None: there was none."""

    @property
    def documents(self) -> int:
        """How many there are."""
        return len(self.lengths if self.sequences is None else self.sequences)

    def document_ends(self) -> NDArray[np.int64]:
        """Tokens up to the end of each document, int64 [documents]."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        if self.sequences is None:
            return ends
        return np.concatenate([[0], ends])[np.cumsum(self.sequences, dtype=np.int64)]

    def first(self, documents: int) -> "EncodedTexts":
        """The first documents alone."""
        sequences = None if self.sequences is None else self.sequences[:documents]
        lengths = self.lengths[: documents if sequences is None else int(sequences.sum())]
        empty = self.empty[: np.searchsorted(self.empty, documents)]
        notes = None if self.notes is None else self.notes[:documents]
        return EncodedTexts(self.tokens[: int(lengths.sum())], lengths, empty, sequences, notes)


class SpacedIds(NamedTuple):
    """Ids of texts as a library gives them, with room for an end-of-document token after each text."""

    ids: NDArray[np.uint32]
    """[sum of lengths + texts]; what stands in the room means nothing"""
    lengths: NDArray[np.int64]
    """ids of each text, without the room"""

    def ends(self) -> NDArray[np.int64]:
        """Where the room of each text is, int64 [texts]."""
        return np.cumsum(self.lengths + 1) - 1

    def each(self) -> list[NDArray[np.uint32]]:
        """The ids of each text."""
        ends = self.ends()
        return [self.ids[end - length : end] for end, length in zip(ends.tolist(), self.lengths.tolist(), strict=True)]

    def cut(self, most: int) -> "SpacedIds":
        """With the first ids of each text alone.

        Args:
            most: ids that a text keeps.
        """
        if not self.lengths.size or self.lengths.max() <= most:
            return self
        starts = self.ends() - self.lengths
        places = np.arange(self.ids.size) - np.repeat(starts, self.lengths + 1)
        kept = places < np.repeat(np.minimum(self.lengths, most) + 1, self.lengths + 1)
        return SpacedIds(self.ids[kept], np.minimum(self.lengths, most))


def spaced(parts: Sequence[NDArray[np.uint32]]) -> SpacedIds:
    """Ids of texts that a library gave text by text."""
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    ids = np.empty(int(lengths.sum()) + len(parts), np.uint32)
    begin = 0
    for part, length in zip(parts, lengths.tolist(), strict=True):
        ids[begin : begin + length] = part
        begin += length + 1
    return SpacedIds(ids, lengths)


def ids_type(vocab_size: int) -> "np.dtype[Any]":
    """The type that Megatron-LM writes for a vocabulary: uint16 below 65,500 ids, else int32."""
    return np.dtype("<u2" if vocab_size < 65500 else "<i4")


def texts_of(
    given: SpacedIds, ending: int | None, max_length: int | None, kind: "np.dtype[Any]", notes: Sequence[Any] | None
) -> EncodedTexts:
    """Documents of one sequence each, of none where a text gave no token. The ids given may be changed.

    Args:
        ending: the token that ends each document that is not empty; None: none does.
        max_length: tokens that a document keeps, its ending included; None: all.
        kind: of the tokens; holds every id.
    """
    kept = given if max_length is None else given.cut(max_length - (ending is not None))
    empty = np.flatnonzero(given.lengths == 0)
    noted = None if notes is None else [[note] for note in notes]
    ends, lengths, sequences = kept.ends(), kept.lengths, None
    if ending is None:
        tokens = np.delete(kept.ids, ends).astype(kind)
    else:
        tokens, lengths = kept.ids.astype(kind), lengths + 1
        tokens[ends] = ending
    if empty.size:
        sequences = (given.lengths > 0).astype(np.int64)
        tokens = tokens if ending is None else np.delete(tokens, ends[empty])
        lengths = np.delete(lengths, empty)
    return EncodedTexts(tokens, lengths, empty, sequences, noted)


def encode_texts(
    tokenizer: Tokenizer, texts: Sequence[str], encoder: TextEncoder | None
) -> tuple[list[list[int]], Sequence[Any] | None]:
    """Ids of each text, and what the encoder noted of each; without an encoder, the tokenizer's ids and None."""
    return (tokenizer.encode_batch(texts), None) if encoder is None else encoder.encode(tokenizer, texts)


def encode_chunk(
    tokenizer: Tokenizer, chunk: Sequence[Texts], append_eod: bool, encoder: TextEncoder | None = None
) -> list[EncodedTexts]:
    """Tokenizes a chunk of documents of one sequence each.

    Args:
        encoder: what makes ids of texts; None leaves it to the tokenizer.

    Returns:
        One entry for each key.
    """
    ending = tokenizer.end_of_document if append_eod else None
    encoded = []
    for texts in zip(*chunk, strict=True):
        documents, notes = encode_texts(tokenizer, texts, encoder)
        given = spaced([np.array(ids, np.uint32) for ids in documents])
        encoded.append(texts_of(given, ending, None, ids_type(tokenizer.vocab_size), notes))
    return encoded
