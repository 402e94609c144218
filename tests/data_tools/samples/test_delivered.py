"""The number of what was delivered: the same however it was read, and another one after any change."""

import hashlib
import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_tools.datasets.checksums import WEYL, checksum
from data_tools.samples.delivered import (
    FACT,
    VERSION,
    Delivered,
    as_doubles,
    delivered_of,
    from_doubles,
    hash_of,
    hash_text,
    sample_hashes,
    source_key,
    summed,
)
from data_tools.samples.difference import ChangedToken, Swapped, single_changes
from data_tools.samples.source import Sample
from megatron_patches.bit_mixing import mix, unmix

KEYS = np.array([source_key("a", ["1"]), source_key("b", ["2", "3"])], dtype=np.uint64)
HASHES = st.integers(0, 2**64 - 1)


def made(count: int, length: int = 6, seed: int = 0) -> tuple[list[int], list[int], list[Sample]]:
    """Sources, numbers and samples; some have segments and answers."""
    draw = np.random.default_rng(seed)
    samples: list[Sample] = []
    for number in range(count):
        sample = {"tokens": draw.integers(0, 300, length)}
        if number % 2:
            sample |= {"segments": draw.integers(-1, 3, length), "answers": draw.integers(0, 2, length)}
        samples.append(sample)
    return draw.integers(0, 2, count).tolist(), draw.integers(0, 1000, count).tolist(), samples


def hashes(places: list[int], sources: list[int], numbers: list[int], samples: Sequence[Sample]) -> NDArray[np.uint64]:
    return sample_hashes(np.array(places), KEYS[sources], np.array(numbers), samples)


def test_golden_values() -> None:
    """They stand in every run's events and checkpoints: a change needs another VERSION."""
    assert VERSION == 1
    assert [hash_text(int(each)) for each in KEYS] == ["5b67d735065943b3", "4605741728ba8c3c"]
    tokens, answers = np.array([5, 0, 2**31]), np.array([0, 1, 1])
    found = hashes([0, 2**53], [0, 1], [7, 2**40], [{"tokens": tokens}, {"tokens": tokens, "answers": answers}])
    assert [hash_text(int(each)) for each in found] == ["291c0da6994eccac", "c5c4793e81ba6a72"]


def test_the_formula_is_the_documented_one() -> None:
    def absorb(state: int, value: int) -> int:
        return int(mix(np.array([((state ^ value) + int(WEYL)) % 2**64], dtype=np.uint64))[0])

    def key(name: str) -> int:
        return int.from_bytes(hashlib.sha256(f'"{name}"'.encode()).digest()[:8], "little")

    tokens, segments = np.array([3, 1, 4]), np.array([0, 0, -1])
    state = 0
    for value in (11, int(KEYS[1]), 5, key("segments"), checksum(segments), key("tokens"), checksum(tokens)):
        state = absorb(state, value)
    assert hashes([11], [1], [5], [{"tokens": tokens, "segments": segments}]).tolist() == [state]


@given(st.integers(1, 24), st.randoms(use_true_random=False))
def test_who_reads_what_does_not_matter(count: int, draw: random.Random) -> None:
    sources, numbers, samples = made(count)
    whole = hashes(list(range(count)), sources, numbers, samples)
    order = list(range(count))
    draw.shuffle(order)
    cuts = sorted({0, count, *(draw.randrange(count + 1) for _ in range(3))})
    low = high = 0.0
    for first, last in pairwise(cuts):
        part = order[first:last]
        found = hashes(part, [sources[at] for at in part], [numbers[at] for at in part], [samples[at] for at in part])
        assert found.tolist() == whole[part].tolist()
        parts = as_doubles(summed(found))
        low, high = low + parts[0], high + parts[1]
    assert from_doubles(low, high) == summed(whole) == sum(whole.tolist()) % 2**64


def test_every_part_of_a_sample_counts() -> None:
    tokens, other = np.array([1, 2, 3]), np.array([1, 3, 2])
    variants = [
        hashes([place], [source], [number], [sample])
        for place, source, number, sample in [
            (0, 0, 0, {"tokens": tokens}), (1, 0, 0, {"tokens": tokens}), (0, 1, 0, {"tokens": tokens}),
            (0, 0, 1, {"tokens": tokens}), (0, 0, 0, {"tokens": other}), (0, 0, 0, {"tokens": tokens[:2]}),
            (0, 0, 0, {"tokens": tokens, "answers": np.array([0, 0, 0])}),
            (0, 0, 0, {"tokens": tokens, "segments": np.array([0, 0, 0])}),
            (0, 0, 0, {"tokens": tokens, "segments": np.array([0, 0, -1])}),
        ]
    ]  # fmt: skip
    assert len({each.item() for each in variants}) == len(variants)
    names = [("a", ["1"]), ("b", ["1"]), ("a", ["2"]), ("a", ["1", "2"]), ("a", ["2", "1"]), ("a", []), ("a1", [])]
    assert len({source_key(name, ids) for name, ids in names}) == len(names)


@given(st.lists(HASHES, min_size=1, max_size=40))
def test_sums_in_doubles_are_exact(values: list[int]) -> None:
    low, high = (sum(parts) for parts in zip(*map(as_doubles, values), strict=True))
    assert from_doubles(low, high) == sum(values) % 2**64


def test_a_million_ranks_are_summed_exactly() -> None:
    low, high = as_doubles(2**64 - 1)
    assert low * 2**20 == sum([int(low)] * 2**20) < 2**53
    assert from_doubles(low * 2**20, high * 2**20) == (2**64 - 1) * 2**20 % 2**64


@given(st.lists(HASHES, min_size=1))
def test_the_mixer_is_inverted(values: list[int]) -> None:
    numbers = np.array(values, dtype=np.uint64)
    assert unmix(mix(numbers)).tolist() == mix(unmix(numbers)).tolist() == values


@given(HASHES, st.integers(0, 2**40))
def test_facts_are_read_back(value: int, samples: int) -> None:
    delivered = Delivered(value, samples)
    assert delivered_of({FACT: delivered.as_fact(), "samples": samples}) == delivered
    assert hash_of(hash_text(value)) == value


@pytest.mark.parametrize(
    "changes",
    [
        {"hash": "12"}, {"hash": 12}, {"hash": "G" * 16}, {"hash": "A" * 16}, {"hash": "0" * 17}, {"hash": None},
        {"version": 2}, {"version": True}, {"version": "1"}, {"samples": -1}, {"samples": 9}, {"samples": 8.0},
    ],
)  # fmt: skip
def test_a_fact_that_says_something_else_is_none(changes: dict[str, object]) -> None:
    assert delivered_of({FACT: {**Delivered(3, 8).as_fact(), **changes}, "samples": 8}) is None
    assert delivered_of({"samples": 8}) is delivered_of({FACT: [1], "samples": 8}) is None
    assert delivered_of({FACT: Delivered(3, 8).as_fact(), "samples": 8}) == Delivered(3, 8)


@given(st.integers(0, 11), st.integers(0, 5), st.integers(0, 299))
def test_one_changed_token_is_found(sample: int, position: int, was: int) -> None:
    sources, numbers, samples = made(12)
    now = int(samples[sample]["tokens"][position])
    before = [{name: array.copy() for name, array in each.items()} for each in samples]
    before[sample]["tokens"][position] = was
    delivered = summed(hashes(list(range(12)), sources, numbers, before))
    found = list(single_changes(np.arange(12), KEYS[sources], np.array(numbers), samples, delivered, 300))
    if was != now:
        assert found == [ChangedToken(sample, position, was, now)]


@given(st.integers(0, 11), st.integers(0, 11))
def test_a_swap_is_found(first: int, second: int) -> None:
    sources, numbers, samples = made(12)
    order = list(range(12))
    order[first], order[second] = second, first
    swapped = [sources[at] for at in order], [numbers[at] for at in order], [samples[at] for at in order]
    delivered = summed(hashes(list(range(12)), *swapped))
    found = list(single_changes(np.arange(12), KEYS[sources], np.array(numbers), samples, delivered, 300))
    if first != second:
        assert found == [Swapped(min(first, second), max(first, second))]


def test_what_no_single_change_explains() -> None:
    sources, numbers, samples = made(12)
    assert not list(single_changes(np.arange(12), KEYS[sources], np.array(numbers), samples, 12345, 300))
