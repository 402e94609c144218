"""What may explain that the hash of delivered samples is another than that of the files: few things do, if any.

A hash is a sum over samples, so it does not name the one that differs. But `mix` can be inverted, and two hashes of 64
bits are the same by chance for one try in 2**64: each single change that could be meant is tried.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.datasets.checksums import WEYL, token_checksums
from data_tools.samples.delivered import absorb, array_key, headed
from data_tools.samples.source import Sample
from megatron_patches.bit_mixing import mix, unmix

MOST_PAIRED = 1024
"""samples of which every pair is tried: 2**20 of them, in a tenth of a second"""
_TOKENS = "tokens"


@dataclass(frozen=True)
class ChangedToken:
    """One token of one sample was another one when it was read."""

    sample: int
    """of those that were given"""
    position: int
    """in the sample, from 0"""
    was: int
    """id that was delivered"""
    now: int


@dataclass(frozen=True)
class Swapped:
    """Two samples were delivered in each other's place."""

    first: int
    second: int


def single_changes(
    places: NDArray[np.int64],
    sources: NDArray[np.uint64],
    numbers: NDArray[np.int64],
    samples: Sequence[Sample],
    delivered: int,
    vocabulary: int,
) -> Iterator[ChangedToken | Swapped]:
    """Single changes of these samples by which the sum of their numbers becomes the one that was delivered.

    Args:
        places, sources, numbers, samples: as of `delivered.sample_hashes`; all that were summed.
        delivered: the sum that was recorded.
        vocabulary: ids of tokens are below this.
    """
    before = _before_tokens(headed(places, sources, numbers), samples)
    checksums = token_checksums(
        np.concatenate([sample[_TOKENS] for sample in samples]), [len(sample[_TOKENS]) for sample in samples]
    )
    hashes = absorb(before, checksums)
    missing = np.array([delivered], dtype=np.uint64) - hashes.sum(dtype=np.uint64)
    wanted = (unmix(hashes + missing) - WEYL) ^ before
    for number, sample in enumerate(samples):
        yield from _changed_tokens(number, sample[_TOKENS], wanted[number : number + 1], vocabulary)
    if len(samples) <= MOST_PAIRED:
        yield from _swapped(places, sources, numbers, samples, checksums, missing)


def _before_tokens(state: NDArray[np.uint64], samples: Sequence[Sample]) -> NDArray[np.uint64]:
    """The state of each sample before its tokens are absorbed, which by their name come last."""
    state = state.copy()
    for name in sorted({name for sample in samples for name in sample} - {_TOKENS}):
        assert name < _TOKENS, "arrays are absorbed by name"
        for number, sample in enumerate(samples):
            if name in sample:
                own, array = slice(number, number + 1), sample[name]
                state[own] = absorb(absorb(state[own], array_key(name)), token_checksums(array, [len(array)]))
    return absorb(state, array_key(_TOKENS))


def _changed_tokens(
    sample: int, tokens: NDArray[np.int64], wanted: NDArray[np.uint64], vocabulary: int
) -> Iterator[ChangedToken]:
    """Tokens that, replaced by another one, give a sample the checksum that is wanted, uint64 [1]."""
    ending = np.array([len(tokens) + 1], dtype=np.uint64) * WEYL
    places = np.arange(1, len(tokens) + 1, dtype=np.uint64) * WEYL
    terms = mix(places + tokens.astype(np.uint64))
    others = unmix(wanted) - ending - terms.sum(dtype=np.uint64)
    found = unmix(terms + others) - places
    for position in np.flatnonzero(found < np.uint64(vocabulary)).tolist():
        yield ChangedToken(sample, position, int(found[position]), int(tokens[position]))


def _swapped(
    places: NDArray[np.int64],
    sources: NDArray[np.uint64],
    numbers: NDArray[np.int64],
    samples: Sequence[Sample],
    checksums: NDArray[np.uint64],
    missing: NDArray[np.uint64],
) -> Iterator[Swapped]:
    count = len(samples)
    at = np.repeat(np.arange(count), count)
    of = np.tile(np.arange(count), count)
    # [count, count]: the number of each sample (column) at each place (row)
    state = headed(places[at], sources[of], numbers[of])
    names = sorted({name for sample in samples for name in sample})
    for name in names:
        having = np.array([name in sample for sample in samples])
        found = checksums
        if name != _TOKENS:
            arrays = [sample.get(name, np.zeros(0, dtype=np.int64)) for sample in samples]
            found = token_checksums(np.concatenate(arrays), [len(array) for array in arrays])
        state = np.where(having[of], absorb(absorb(state, array_key(name)), found[of]), state)
    numbers_at = state.reshape(count, count)
    more = numbers_at - np.diag(numbers_at)[:, None]
    for first, second in np.argwhere(more + more.T == missing).tolist():
        if first < second:
            yield Swapped(first, second)
