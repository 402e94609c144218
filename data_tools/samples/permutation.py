"""A seeded pseudo-random permutation that costs O(1) for each element and no memory: order without an index file.

A keyed balanced Feistel network permutes [0, 4**half_bits); where the image falls outside [0, size) it is permuted
again until it falls inside (cycle walking; Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Above 4
elements the domain is less than four times the size, so an index is permuted fewer than four times on average. The
order is part of every run's result: it may never change, and tests hold golden values.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from megatron_patches.bit_mixing import mix
from megatron_patches.errors import TrainyardError

ROUNDS = 8
# With 1 bit a half the round functions are so few that small permutations would be visibly uneven.
SMALLEST_HALF_BITS = 2
LARGEST_SIZE = 1 << 62


def permute(index: NDArray[np.int64] | int, size: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """Image of each index under the permutation of [0, size) that the key selects.

    Args:
        index: numbers in [0, size), any shape.
        size: length of the permuted range, at most 2**62.
        key: any integers, such as (seed, epoch); other keys or sizes give independent permutations.

    Returns:
        int64, of the shape of `index`.

    Raises:
        TrainyardError: an index lies outside the range, or the size is not between 1 and 2**62.
    """
    indices = np.asarray(index, dtype=np.int64)
    if not 1 <= size <= LARGEST_SIZE:
        raise TrainyardError(f"cannot permute {size} elements; the size must be from 1 to {LARGEST_SIZE}")
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise TrainyardError(f"indices {indices.min()} to {indices.max()} do not lie in [0, {size})")
    half_bits = max(SMALLEST_HALF_BITS, ((size - 1).bit_length() + 1) // 2)
    round_keys = _round_keys(size, key)
    image = _feistel(indices.ravel().astype(np.uint64), half_bits, round_keys)
    outside = np.flatnonzero(image >= size)
    while outside.size:
        image[outside] = _feistel(image[outside], half_bits, round_keys)
        outside = outside[image[outside] >= size]
    return image.astype(np.int64).reshape(indices.shape)


def _round_keys(size: int, key: tuple[int, ...]) -> NDArray[np.uint64]:
    text = f"permutation {size} {' '.join(map(str, key))}"
    digests = b"".join(hashlib.sha256(f"{text} {block}".encode()).digest() for block in range(ROUNDS // 4))
    return np.frombuffer(digests, dtype="<u8")


def _feistel(values: NDArray[np.uint64], half_bits: int, round_keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    shift = np.uint64(half_bits)
    mask = np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for round_key in round_keys:
        left, right = right, left ^ (mix(right ^ round_key) & mask)
    return (left << shift) | right
