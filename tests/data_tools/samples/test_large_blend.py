"""A blend of a trillion tokens, of which only the headers are there: `python -m tests.large_blend` has 200 sources."""

import tracemalloc
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from data_tools.run_data import RunData
from data_tools.samples.blend import PERIOD, BlendPattern, whole_weights
from tests.large_blend import LENGTH, lengths, make_large_blend, section

SOURCES, TOKENS = 20, 50_000_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("large")
    make_large_blend(made, SOURCES, TOKENS)
    return made


def test_a_trillion_tokens_open_in_a_second_of_work_and_read_anywhere(folder: Path) -> None:
    began = process_time()
    samples = RunData(section(folder, SOURCES, LENGTH), folder, lengths(LENGTH)).training(seed=1)
    assert process_time() - began < 1
    last = SOURCES * TOKENS // LENGTH
    places = np.array([0, last // 2, last, 7 * last], dtype=np.int64)
    located = samples.locate(places)
    assert (located.number < TOKENS // LENGTH).all() and located.number.max() > 1_000_000
    assert [len(each["tokens"]) for each in samples.read(located)] == [LENGTH + 1] * 4


def test_a_trillion_tokens_take_little_memory(folder: Path) -> None:
    tracemalloc.start()
    samples = RunData(section(folder, SOURCES, LENGTH), folder, lengths(LENGTH)).training(seed=1)
    samples.read(samples.locate(np.arange(64)))
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert highest < 50e6, "while it opens; a list of all samples would be 4 GB"


@pytest.mark.parametrize("weights", [[1.0] * 2, range(1, 301), [1.0] * PERIOD], ids=len)
def test_a_pattern_is_small(weights: list[float]) -> None:
    arrays = vars(BlendPattern(whole_weights(weights))).values()
    assert sum(each.nbytes for each in arrays) < 1_000_000
