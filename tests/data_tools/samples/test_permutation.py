import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_tools.samples.permutation import LARGEST_SIZE, Permutation, permute
from megatron_patches.bit_mixing import mix
from megatron_patches.errors import TrainyardError


def test_golden_values() -> None:
    """The order of every run ever made: a change here makes resumed runs read other samples."""
    assert permute(np.arange(10), 10, (1234, 0)).tolist() == [5, 0, 1, 6, 3, 7, 4, 2, 8, 9]
    assert permute(np.arange(5), 1_000_003, (1234, 1)).tolist() == [246919, 863688, 150959, 210388, 853749]
    assert permute(np.arange(3), 10**12, (0, 0)).tolist() == [649023528098, 571153590004, 978191561316]


def test_every_small_size_is_permuted() -> None:
    for size in range(1, 301):
        image = permute(np.arange(size), size, (7, size))
        assert np.array_equal(np.sort(image), np.arange(size)), size


@pytest.mark.parametrize("size", [2**16, 2**16 + 1, 100_003])
def test_large_sizes_are_permuted(size: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(size), size, (1, 0))), np.arange(size))


@pytest.mark.parametrize("size", [10**12, 2**40 + 1, LARGEST_SIZE])
def test_huge_sizes_stay_inside_and_do_not_collide(size: int) -> None:
    indices = np.concatenate([np.arange(5_000), size - 1 - np.arange(5_000)])
    image = permute(indices, size, (1, 0))
    assert image.min() >= 0 and image.max() < size
    assert len(np.unique(image)) == len(indices)


def inverse(image: NDArray[np.int64], size: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """What was permuted to these, by the network's rounds backwards, with its cycles walked backwards too."""
    which = Permutation(size, key)
    mask = (1 << which.half_bits) - 1
    found = []
    for value in image.tolist():
        while True:
            left, right = value >> which.half_bits, value & mask
            for round_key in which.round_keys[::-1]:
                mixed = mix(np.array([left], dtype=np.uint64) ^ round_key)
                left, right = right ^ (int(mixed[0]) & mask), left
            value = left << which.half_bits | right
            if value < size:
                break
        found.append(value)
    return np.array(found, dtype=np.int64)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32), epoch=st.integers(0, 100))
def test_any_size_is_permuted(data: st.DataObject, seed: int, epoch: int) -> None:
    """A bijection of [0, size): images lie within, and each leads back to its index and to no other."""
    size = data.draw(st.integers(0, 48).flatmap(lambda bits: st.integers(max(1, 2**bits // 2), 2**bits)))
    indices = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=6)), dtype=np.int64)
    image = permute(indices, size, (seed, epoch))
    assert ((image >= 0) & (image < size)).all()
    assert np.array_equal(inverse(image, size, (seed, epoch)), indices)
    assert np.array_equal(permute(inverse(indices, size, (seed, epoch)), size, (seed, epoch)), indices), "onto"


def test_one_index_and_many_agree() -> None:
    many = permute(np.arange(50).reshape(5, 10), 1000, (3, 1))
    assert many.shape == (5, 10)
    assert [int(permute(index, 1000, (3, 1))) for index in range(50)] == many.ravel().tolist()


def test_seed_epoch_and_size_select_the_permutation() -> None:
    orders = [
        permute(np.arange(64), size, key) for size, key in [(64, (1, 0)), (64, (1, 1)), (64, (2, 0)), (65, (1, 0))]
    ]
    agreement = [np.mean(one == other) for number, one in enumerate(orders) for other in orders[:number]]
    assert max(agreement) < 0.15  # 1/64 expected, standard deviation 0.016


@pytest.mark.parametrize("size", [3, 17])
def test_every_position_is_equally_likely(size: int) -> None:
    """Chi-square over 200 keys; five standard deviations of the statistic, so a fair order passes surely."""
    keys = 200
    counts = np.zeros((size, size))
    for key in range(keys):
        counts[np.arange(size), permute(np.arange(size), size, (key,))] += 1
    _assert_uniform(counts, freedom=(size - 1) ** 2)


def test_neighbours_are_unrelated() -> None:
    """Distances between successive images, and images themselves along the order, fill 100 bins evenly."""
    size = 100_003
    image = permute(np.arange(size), size, (5, 0))
    distances, _ = np.histogram(np.diff(image) % size, bins=100, range=(0, size))
    beginning, _ = np.histogram(image[:20_000], bins=100, range=(0, size))
    _assert_uniform(distances, freedom=99)
    _assert_uniform(beginning, freedom=99)


def _assert_uniform(counts: np.ndarray, freedom: int) -> None:
    expected = counts.mean()
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < freedom + 5 * np.sqrt(2 * freedom) + 5


@pytest.mark.parametrize(("index", "size"), [(5, 5), (-1, 5), (0, 0), (0, LARGEST_SIZE + 1)])
def test_outside_the_range(index: int, size: int) -> None:
    with pytest.raises(TrainyardError):
        permute(index, size, (1,))
