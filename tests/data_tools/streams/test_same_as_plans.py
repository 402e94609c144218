"""Streams whose order is kept give the samples that a plan of the same documents gives."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_tools.datasets.indexed_dataset import IndexedDataset
from data_tools.plans.wrapping import Wrapping
from data_tools.samples.windows import TokenWindows
from data_tools.streams.cursor import StreamCursor
from data_tools.streams.end_of_data import EndOfData
from data_tools.text.tokenizers import load_tokenizer
from tests.data_tools.conftest import TEXTS
from tests.data_tools.plans.requests import lengths_of, plan_of
from tests.data_tools.streams.fakes import MemoryPart, parts_of, reading_ahead, settings_of

MakeDataset = Callable[..., Path]
KINDS: list[Any] = [
    "windows",
    {"name": "windows", "stride": 3, "balance_last": False, "filters": {"minimum_tokens": 4}},
    "packs",
    {"name": "packs", "longer": "drop", "filters": {"maximum_tokens": 7}},
    {"name": "packs", "block_documents": 5},
]


def compare(cursor: StreamCursor, expected: Any) -> None:
    assert len(expected) > 3
    found = cursor.take(0, len(expected))
    for number, sample in enumerate(found):
        assert sample.keys() == expected[number].keys()
        for name, array in expected[number].items():
            assert sample[name].dtype == array.dtype and np.array_equal(sample[name], array), (number, name)
    with pytest.raises(EndOfData) as raised:
        cursor.take(len(expected), len(expected) + 1)
    assert raised.value.samples == len(expected)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_segments(kind: Any, seed: int, make_dataset: MakeDataset) -> None:
    parts = parts_of(Random(seed), 4, most=30, longest=30)
    prefix = make_dataset([entry for part in parts for entry in part.entries])
    settings = settings_of(kind, max_epochs=1)
    compare(StreamCursor(parts, reading_ahead(3), settings), plan_of(prefix, kind))


@pytest.mark.parametrize("kind", [each for each in KINDS if "filters" not in each], ids=str)
def test_wrapped_segments(kind: Any, make_dataset: MakeDataset) -> None:
    parts = parts_of(Random(7), 4, most=30, longest=30)
    prefix = make_dataset([entry for part in parts for entry in part.entries])
    wrapped = {**({"name": kind} if isinstance(kind, str) else kind), "wrapped": True}
    around = Wrapping(cls=9001, sep=9002, pad=9003)
    settings = settings_of(wrapped, max_epochs=1, wrapping=around)
    compare(StreamCursor(parts, reading_ahead(3), settings), plan_of(prefix, wrapped, wrapping=around))
    others = settings_of(wrapped, max_epochs=1, wrapping=around._replace(pad=0))
    assert others.key(parts) != settings.key(parts) != settings_of(kind, max_epochs=1).key(parts)


@pytest.mark.parametrize("stride", [7, 8, 2])
def test_a_stream(stride: int, make_dataset: MakeDataset) -> None:
    parts = parts_of(Random(stride), 4, most=30)
    prefix = make_dataset([entry for part in parts for entry in part.entries])
    dataset = IndexedDataset(prefix)
    expected = TokenWindows(dataset, (0, dataset.number_of_documents), lengths_of(8, stride))
    compare(StreamCursor(parts, reading_ahead(0), settings_of("stream", stride=stride, max_epochs=1)), expected)


@pytest.mark.parametrize("kind", ["windows", "packs"])
def test_answers(kind: str, make_dataset: MakeDataset) -> None:
    random = Random(5)
    nested: list[list[list[int]]] = [
        [[random.randint(1, 99)] * random.randint(0, 6) for _ in range(random.choice([1, 2, 4]))] for _ in range(50)
    ]
    prefix = make_dataset([[token for sequence in document for token in sequence] for document in nested])
    mask = np.array([odd % 2 == 1 for document in nested for odd, each in enumerate(document) for _ in each])

    def answers(first: int, count: int) -> NDArray[np.bool_]:
        return mask[first : first + count]

    cursor = StreamCursor(
        [MemoryPart("records", nested)], reading_ahead(0), settings_of(kind, max_epochs=1, answers=True)
    )
    compare(cursor, plan_of(prefix, kind, answers=answers))


def test_filters_of_characters(make_dataset: MakeDataset, tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    ids = [tokenizer.encode(text if number % 3 else f"{text}!?.;:!") for number, text in enumerate(TEXTS)]
    samples = {"name": "windows", "filters": {"maximum_punctuation": 0.2}}
    settings = settings_of(samples, max_epochs=1, tokenizer=tokenizer_folder)
    expected = plan_of(make_dataset(ids), samples, tokenizer=tokenizer_folder)
    assert expected.facts.removed["maximum_punctuation"] > 0
    compare(StreamCursor([MemoryPart("text", ids)], reading_ahead(0), settings), expected)
