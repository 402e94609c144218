"""A 64-bit checksum of token ids in their order: the same for the same tokens, wherever and in whatever type they lie.

For tokens t[0] to t[n - 1], in arithmetic modulo 2**64:

    checksum = mix(sum over i of mix((i + 1) * WEYL + t[i]) + (n + 1) * WEYL)

`mix` is that of `megatron_patches.bit_mixing`, WEYL the increment of splitmix64 (Steele, Lea and Flood 2014): the odd
number nearest to 2**64 divided by the golden ratio. Multiples of the golden ratio keep further from each other than
those of any other number (Hurwitz 1891): for distances below 2**30, (i - j) * WEYL is further than 2**32 from zero. So
no two pairs of a place and a token below 2**32 give one term, in documents of up to 2**30 tokens, and the sum is that
of a set of pairs that says all: AdHash (Bellare and Micciancio 1997) with `mix` as its random function.

With `mix` taken as random, two different documents have one checksum with a probability of 2**-64. Among n of them
that is expected n**2 / 2**65 times: 3e-8 times among a million, 0.03 among a billion, 27 among thirty billion. It is
no protection against people: who wants to can make two texts of one checksum.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megatron_patches.bit_mixing import mix

VERSION = 1
"""of the formula; whoever changes it makes all stored checksums those of another version"""
WEYL = np.uint64(0x9E3779B97F4A7C15)
TOKENS_AT_ONCE = 1 << 15
"""so that what is computed of them stays in the processor's second cache"""


def token_checksums(tokens: NDArray[Any], lengths: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    """Checksums of documents, or samples, whose tokens lie end to end.

    Args:
        tokens: ids of any integer type, [sum of lengths]; those of a mapped file are read in small pieces.
        lengths: tokens of each document, [n]; an empty one has the checksum of no tokens.

    Returns:
        uint64 [n].
    """
    counts = np.asarray(lengths, dtype=np.int64)
    assert tokens.dtype.kind in "iu" and tokens.ndim == 1 and len(tokens) == counts.sum(), "lengths cover the tokens"
    filled = np.flatnonzero(counts)
    sums = np.zeros(len(counts), dtype=np.uint64)
    sums[filled] = _sums(tokens, (np.cumsum(counts) - counts)[filled])
    return mix(sums + (counts.astype(np.uint64) + np.uint64(1)) * WEYL)


def checksum(tokens: ArrayLike) -> int:
    """Checksum of one document or sample, of ids of any integer type, [n]."""
    ids = np.asarray(tokens)
    ids = ids if ids.size else ids.astype(np.int64)  # numpy takes an empty list for floats
    return int(token_checksums(ids, [len(ids)])[0])


def _sums(tokens: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The sum of each non-empty document's terms, uint64 [starts]; a long document is summed in pieces."""
    sums = np.zeros(len(starts), dtype=np.uint64)
    steps = np.arange(1, TOKENS_AT_ONCE + 1, dtype=np.uint64) * WEYL
    for begin in range(0, len(tokens), TOKENS_AT_ONCE):
        piece = tokens[begin : begin + TOKENS_AT_ONCE].astype(np.uint64)
        first, last = np.searchsorted(starts, begin, "right") - 1, np.searchsorted(starts, begin + len(piece), "left")
        before = starts[first:last] - begin  # negative for a document that began in an earlier piece
        cuts = np.maximum(before, 0)
        piece += steps[: len(piece)]
        piece -= np.repeat(before.astype(np.uint64) * WEYL, np.diff(cuts, append=len(piece)))
        sums[first:last] += np.add.reduceat(mix(piece), cuts)
    return sums
