from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.order import TrainingOrder
from data_tools.samples.windows import TokenWindows
from megatron_patches.errors import TrainyardError

MakeDataset = Callable[..., Path]


def next_token(length: int) -> SampleLengths:
    """A token more than the model sees, which is the next sample's first."""
    return SampleLengths(read=length + 1, stride=length, positions=(("tokens", length),), counted=length)


def test_windows_cover_a_range_of_documents(make_dataset: MakeDataset) -> None:
    dataset = IndexedDataset(make_dataset([[90, 91], [0, 1, 2], [], [3, 4, 5, 6, 7], [8, 9], [80]]))
    windows = TokenWindows(dataset, (1, 5), next_token(3))
    assert (windows.tokens, len(windows)) == (10, 3)
    assert [windows[window]["tokens"].tolist() for window in range(3)] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert windows[0]["tokens"].dtype == np.int64


@pytest.mark.parametrize(("tokens", "windows"), [(0, 0), (1, 0), (4, 0), (5, 1), (8, 1), (9, 2)])
def test_number_of_windows(make_dataset: MakeDataset, tokens: int, windows: int) -> None:
    dataset = IndexedDataset(make_dataset([list(range(tokens)), [7]]))
    assert len(TokenWindows(dataset, (0, 1), next_token(4))) == windows


@pytest.mark.parametrize(
    ("read", "stride", "found"),
    [
        (4, 4, [[0, 1, 2, 3], [4, 5, 6, 7]]),  # nothing is predicted of the next sample
        (5, 2, [[0, 1, 2, 3, 4], [2, 3, 4, 5, 6], [4, 5, 6, 7, 8]]),  # samples that overlap
        (2, 4, [[0, 1], [4, 5]]),  # and such that leave something out
        (10, 1, []),
    ],
)
def test_an_objective_may_read_other_lengths(
    make_dataset: MakeDataset, read: int, stride: int, found: list[list[int]]
) -> None:
    dataset = IndexedDataset(make_dataset([list(range(9)), [90]]))
    windows = TokenWindows(dataset, (0, 1), SampleLengths(read, stride, (("tokens", read),), read))
    assert [windows[number]["tokens"].tolist() for number in range(len(windows))] == found


@pytest.mark.parametrize("window", [-1, 2])
def test_no_such_window(make_dataset: MakeDataset, window: int) -> None:
    windows = TokenWindows(IndexedDataset(make_dataset([list(range(9))])), (0, 1), next_token(4))
    with pytest.raises(IndexError):
        windows[window]


def test_every_epoch_reads_every_window_once_in_its_own_order() -> None:
    order = TrainingOrder(97, seed=1234)
    epochs = order.numbers(np.arange(3 * 97)).reshape(3, 97)
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(97))
    assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()


def test_the_order_is_a_pure_function() -> None:
    """Any batch, in any order, from a new object: what a resumed run on another layout does."""
    whole = TrainingOrder(97, seed=5).numbers(np.arange(300))
    for first in (0, 90, 96, 97, 200):
        assert np.array_equal(TrainingOrder(97, 5).numbers(np.arange(first, first + 20)), whole[first : first + 20])
    shuffled = np.random.default_rng(0).permutation(300)
    assert np.array_equal(TrainingOrder(97, 5).numbers(shuffled), whole[shuffled])
    assert (TrainingOrder(97, 6).numbers(np.arange(97)) != whole[:97]).any()


def test_golden_order() -> None:
    samples = np.array([0, 1, 999, 1000, 123456])
    assert TrainingOrder(1000, seed=1234).numbers(samples).tolist() == [
        453,
        605,
        428,
        166,
        451,
    ]


def test_nothing_to_order() -> None:
    with pytest.raises(TrainyardError, match="no samples"):
        TrainingOrder(0, 1)
