"""Libraries that encode, behind one interface."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_tools.text.document_encoding import SpacedIds, spaced
from data_tools.text.recent_characters import RecentCharacters
from data_tools.text.tokenizer import Tokenizer
from megatron_patches.foreign.printable import shortened

JOINED_BELOW = 700
"""mean characters of a text below which gigatoken gets all texts at once: a call for each takes 2 µs, which is twice as
much as the work where lines have 44 bytes (0.30 s in place of 0.88 s for 18 MB); from 1,000 on texts by themselves are
a third faster"""


class LibraryFailed(Exception):
    """A library raised on texts that the reference may well encode."""


class Library(Protocol):
    """Texts to ids."""

    name: str
    version: str

    def encode(self, texts: Sequence[str]) -> SpacedIds:
        """Ids of each text.

        Raises:
            LibraryFailed: the library raised.
        """

    def rebuilt(self) -> "Library":
        """The same with empty caches."""


class Reference:
    """The tokenizer as the project loads it: what it gives is right."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.name = tokenizer.library
        self.version = version(self.name)

    def encode(self, texts: Sequence[str]) -> SpacedIds:
        """See `Library`."""
        return spaced([np.array(ids, np.uint32) for ids in self._tokenizer.encode_batch(texts)])

    def rebuilt(self) -> "Reference":
        """See `Library`: its cache is bounded."""
        return self


class Gigatoken:
    """gigatoken: a BPE of any kind.

    Args:
        description: a `tokenizer.json`, as text, whose token `separator` no text holds.
        number: the separator's id.
        reference: encodes the texts with characters that gigatoken sorts by a later Unicode.
        joins: texts are joined where they are short.
    """

    name = "gigatoken"

    def __init__(
        self, description: str, separator: str, number: int, reference: Reference, joins: bool = True
    ) -> None:
        from gigatoken.gigatoken_rs import load_hf_json

        self.version = version(self.name)
        self._description = description
        self._separator = separator
        self._number = number
        self._reference = reference
        self._recent = RecentCharacters()
        self._joins = joins
        self._encode: Callable[[str], NDArray[np.uint32]] = load_hf_json(description).encode

    def encode(self, texts: Sequence[str]) -> SpacedIds:
        """See `Library`."""
        recent = self._recent.holders(texts)
        if not recent:
            return self._all(texts)
        left_out = set(recent)
        ids = self._all([text for index, text in enumerate(texts) if index not in left_out]).each()
        for index, each in zip(recent, self._reference.encode([texts[index] for index in recent]).each(), strict=True):
            ids.insert(index, each)
        return spaced(ids)

    def _all(self, texts: Sequence[str]) -> SpacedIds:
        many = self._joins and len(texts) > 1 and sum(map(len, texts)) < JOINED_BELOW * len(texts)
        return checked(self._joined if many else self._each, texts)

    def _each(self, texts: Sequence[str]) -> SpacedIds:
        return spaced(list(map(self._encode, texts)))

    def _joined(self, texts: Sequence[str]) -> SpacedIds:
        ids = self._encode(self._separator.join([*texts, ""]))
        ends = np.flatnonzero(ids == self._number)
        return SpacedIds(ids, np.diff(ends, prepend=-1) - 1)

    def joining(self, texts: Sequence[str]) -> "Gigatoken":
        """The same; texts are joined where that gives these the ids that they have by themselves."""
        each, joined = checked(self._each, texts).each(), checked(self._joined, texts).each()
        self._joins = all(map(np.array_equal, each, joined))
        return self

    def rebuilt(self) -> "Gigatoken":
        """See `Library`."""
        return Gigatoken(self._description, self._separator, self._number, self._reference, self._joins)


class Fastokens:
    """fastokens: byte-level BPE.

    Args:
        description: a `tokenizer.json`, as text.
    """

    name = "fastokens"

    def __init__(self, description: str) -> None:
        from fastokens._native import Tokenizer as Native

        self.version = version(self.name)
        self._encode: Callable[[list[str]], tuple[bytes, bytes]] = Native.from_json_str(description).encode_batch_flat

    def encode(self, texts: Sequence[str]) -> SpacedIds:
        """See `Library`."""
        return checked(self._flat, texts)

    def _flat(self, texts: Sequence[str]) -> SpacedIds:
        flat, offsets = self._encode(list(texts))
        ids = np.frombuffer(flat, np.uint32)
        ends = np.frombuffer(offsets, np.uint64)[1:].astype(np.int64)
        return SpacedIds(np.insert(ids, ends, 0), np.diff(ends, prepend=0))

    def rebuilt(self) -> "Fastokens":
        """See `Library`: its cache is bounded (270 MB after 1.2 GB of random words)."""
        return self


def is_failure(error: BaseException) -> bool:
    """Whether a library raised it: Rust that panics raises a BaseException that cannot be imported."""
    return type(error).__name__ == "PanicException" or isinstance(error, Exception)


def checked(encode: Callable[[Sequence[str]], SpacedIds], texts: Sequence[str]) -> SpacedIds:
    """What a library makes of the texts: as many as they are.

    Raises:
        LibraryFailed: the library raised, or made another number of texts.
    """
    try:
        ids = encode(texts)
    except BaseException as error:
        if isinstance(error, MemoryError) or not is_failure(error):
            raise
        raise LibraryFailed(f"failed ({type(error).__name__}: {shortened(error, 120)})") from error
    if len(ids.lengths) != len(texts) or ids.ids.size != ids.lengths.sum() + len(texts):
        raise LibraryFailed(f"gave ids of {len(ids.lengths):,} texts in place of {len(texts):,}")
    return ids


FastLibrary = Callable[[dict[str, Any], Tokenizer], Library]
"""makes a library of a `tokenizer.json` and of the tokenizer loaded from it"""
