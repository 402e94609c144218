"""A seeded pseudo-random permutation that costs O(1) for each element and no memory: order without an index file.

A keyed balanced Feistel network permutes [0, 4**half_bits); where the image falls outside [0, size) it is permuted
again until it falls inside (cycle walking; Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Above 4
elements the domain is less than four times the size, so an index is permuted fewer than four times on average. The
order is part of every run's result: it may never change, and tests hold golden values.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from megatron_patches.bit_mixing import mix
from megatron_patches.errors import TrainyardError

ROUNDS = 8
# With 1 bit a half the round functions are so few that small permutations would be visibly uneven.
SMALLEST_HALF_BITS = 2
LARGEST_SIZE = 1 << 62


@dataclass(frozen=True)
class Permutation:
    """One permutation of [0, size).

    Args:
        size: at most 2**62.
        key: any integers, such as (seed, epoch); other keys or sizes give independent permutations.

    Raises:
        TrainyardError: the size is not between 1 and 2**62.
    """

    size: int
    key: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.size <= LARGEST_SIZE:
            raise TrainyardError(f"cannot permute {self.size} elements; the size must be from 1 to {LARGEST_SIZE}")

    @cached_property
    def half_bits(self) -> int:
        """Of the domain [0, 4**half_bits)."""
        return max(SMALLEST_HALF_BITS, ((self.size - 1).bit_length() + 1) // 2)

    @cached_property
    def round_keys(self) -> NDArray[np.uint64]:
        """uint64 [ROUNDS]."""
        text = f"permutation {self.size} {' '.join(map(str, self.key))}"
        digests = b"".join(hashlib.sha256(f"{text} {block}".encode()).digest() for block in range(ROUNDS // 4))
        return np.frombuffer(digests, dtype="<u8")


def permute(index: NDArray[np.int64] | int, size: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """Image of each index under the permutation of [0, size) that the key selects (see `Permutation`).

    Args:
        index: numbers in [0, size), any shape.

    Returns:
        int64, of the shape of `index`.

    Raises:
        TrainyardError: an index lies outside the range, or the size is not between 1 and 2**62.
    """
    indices = np.asarray(index, dtype=np.int64)
    which = np.zeros(indices.size, dtype=np.int64)
    return permute_each(indices.ravel(), [Permutation(size, key)], which).reshape(indices.shape)


def permute_each(
    indices: NDArray[np.int64], permutations: Sequence[Permutation], which: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Image of each index under a permutation of its own; all at once, since a call costs more than an element.

    Args:
        indices: int64 [n], each in the range of its permutation.
        which: its position among the permutations, int64 [n].

    Returns:
        int64 [n].

    Raises:
        TrainyardError: an index lies outside the range.
    """
    if not indices.size:
        return indices
    sizes = np.array([each.size for each in permutations], dtype=np.int64)[which]
    outside = np.flatnonzero((indices < 0) | (indices >= sizes))
    if outside.size:
        first = int(outside[0])
        raise TrainyardError(f"index {indices[first]} does not lie in [0, {sizes[first]})")
    shifts = np.array([each.half_bits for each in permutations], dtype=np.uint64)[which]
    round_keys = np.stack([each.round_keys for each in permutations], axis=1)[:, which]
    limits = sizes.astype(np.uint64)
    image = _feistel(indices.astype(np.uint64), shifts, round_keys)
    outside = np.flatnonzero(image >= limits)
    while outside.size:
        image[outside] = _feistel(image[outside], shifts[outside], round_keys[:, outside])
        outside = outside[image[outside] >= limits[outside]]
    return image.astype(np.int64)


def _feistel(
    values: NDArray[np.uint64], shifts: NDArray[np.uint64], round_keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    masks = (np.uint64(1) << shifts) - np.uint64(1)
    left, right = values >> shifts, values & masks
    for round_key in round_keys:
        left, right = right, left ^ (mix(right ^ round_key) & masks)
    return (left << shifts) | right
