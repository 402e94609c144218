"""Whether a library's ids are the reference's, and what is kept of the answer."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.encoding.encoded_block import Compared
from data_tools.encoding.proof import DifferentIds
from data_tools.reading.block import Block
from data_tools.reading.entries import where_of


class Place(NamedTuple):
    """A document that a library encoded."""

    block: Block
    number: int
    library: str


def same_ids(given: NDArray[Any], expected: NDArray[Any], place: Place) -> bytes:
    """The hash of the ids of a document.

    Raises:
        DifferentIds: they are not those that are expected.
    """
    if not np.array_equal(given, expected):
        most = min(len(given), len(expected))
        other = np.flatnonzero(given[:most] != expected[:most])
        first = int(other[0]) if other.size else most
        reason = f"gives {len(given):,} ids in place of {len(expected):,}, other ones from id {first:,} on"
        raise DifferentIds(place.block.origin, where_of(place.block, place.number), place.library, reason)
    return hashlib.sha256(expected.astype("<i4").tobytes()).digest()


def compared(sizes: Sequence[int], hashes: Sequence[Iterable[bytes]]) -> Compared:
    """What was compared in a block.

    Args:
        sizes: bytes of each document.
        hashes: of the ids, of each key those of each document.
    """
    in_order = tuple(each for of_document in zip(*hashes, strict=True) for each in of_document)
    return Compared(len(sizes), sum(sizes), in_order)
