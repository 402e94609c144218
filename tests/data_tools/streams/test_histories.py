"""Histories of kills, resumes and jumps, with changes of all that must not matter: the same samples in any of them."""

import hashlib
import json
from dataclasses import replace
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
import pytest

from data_tools.samples.permutation import permute
from data_tools.samples.source import Sample
from data_tools.streams import order, text_stream
from data_tools.streams.cursor import StreamCursor
from data_tools.streams.position import StreamPosition
from data_tools.streams.settings import StreamSettings
from tests.data_tools.streams.fakes import MemoryPart, parts_of, reading_ahead, settings_of

KINDS: list[Any] = [
    "stream",
    "windows",
    {"name": "windows", "stride": 3, "filters": {"minimum_tokens": 2}},
    "packs",
    {"name": "packs", "longer": "drop", "block_documents": 7},
]


def cut_elsewhere(parts: list[MemoryPart], random: Random) -> list[MemoryPart]:
    return [replace(part, cuts=random.randrange(1000)) for part in parts]


def same(found: list[Sample], expected: list[Sample]) -> bool:
    return len(found) == len(expected) and all(
        left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)
        for left, right in zip(found, expected, strict=True)
    )


def some_settings(random: Random, parts: list[MemoryPart]) -> StreamSettings:
    reserved = tuple(random.choice([0, 0, random.randint(0, len(part.entries) // 2)]) for part in parts)
    shuffle = random.choice([1, 2, 5, 30])
    return settings_of(
        random.choice(KINDS),
        stride=random.choice([8, 7, 3]),
        seed=random.randrange(100),
        shuffle_documents=shuffle,
        reserved=reserved,
    )


def a_history(random: Random, parts: list[MemoryPart], settings: StreamSettings, expected: list[Sample]) -> None:
    """Reads all samples, with accidents; `trained` is what a checkpoint would have."""
    trained, saved = 0, StreamPosition()
    cursor: StreamCursor | None = None
    while trained < len(expected):
        if cursor is None:
            known = [StreamPosition.model_validate(json.loads(saved.model_dump_json()))]
            encode = reading_ahead(random.choice([0, 1, 7]))
            cursor = StreamCursor(cut_elsewhere(parts, random), encode, settings, known)
        count = random.choice([1, 2, 7, 40])
        end = min(trained + count, len(expected))
        assert same(cursor.take(trained, end), expected[trained:end])
        trained = end
        event = random.random()
        if event < 0.3:
            saved = cursor.position_for(trained)
            assert saved.samples <= trained
        if event < 0.2:
            cursor = None
        elif event > 0.9:  # a rollback
            trained = random.randrange(trained)
        elif event > 0.85:  # samples that are left out
            trained = min(trained + 3, len(expected))


@pytest.fixture(name="quick_permutations")
def quick_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories of one stream ask for the same ones again and again, and of few elements they are slow."""
    kept = lru_cache(lambda size, key: permute(np.arange(size), size, key))
    monkeypatch.setattr(order, "permute", lambda index, size, key: kept(size, key))


@pytest.mark.parametrize("seed", range(6))
def test_twenty_histories(seed: int, monkeypatch: pytest.MonkeyPatch, quick_permutations: None) -> None:
    """The long form is `tests.torture.test_streams`."""
    histories(seed, 20, monkeypatch)


def histories(seed: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some histories of one stream."""
    random = Random(seed)
    parts = [*parts_of(random, random.randint(0, 3), 6), MemoryPart("last", [[9001, 9002, 9003]] * 3)]
    settings = some_settings(random, parts)
    expected = StreamCursor(parts, reading_ahead(0), settings).take(0, random.choice([5, 30]))
    for history in range(number):
        monkeypatch.setattr(text_stream, "CHUNK_TOKENS", random.choice([8, 30, 1 << 17]))
        a_history(Random(seed * 1000 + history), parts, settings, expected)


def documents_of_epoch(parts: list[MemoryPart], settings: StreamSettings, epoch: int) -> list[list[int]]:
    """As they are read, from what the position's documentation says."""
    chosen = []
    number = int.from_bytes(hashlib.sha256(settings.source.encode()).digest()[:8], "little")
    keyed = (settings.seed, number)
    order = permute(np.arange(len(parts)), len(parts), (*keyed, 1, epoch)).tolist()
    for place in order:
        chosen += [each for each in parts[place].entries if each is not None][settings.reserved_of(place) :]
    found: list[list[int]] = []
    for block, first in enumerate(range(0, len(chosen), settings.shuffle_documents)):
        here = chosen[first : first + settings.shuffle_documents]
        found += [list(here[each]) for each in permute(np.arange(len(here)), len(here), (*keyed, 2, epoch, block))]
    return found


@pytest.mark.parametrize("seed", range(8))
def test_each_document_of_an_epoch_is_read_once(seed: int) -> None:
    random = Random(seed)
    parts = [*parts_of(random, 4), MemoryPart("last", [[9001, 9002, 9003]] * 3)]
    settings = some_settings(random, parts)
    settings = replace(settings, samples=settings_of("stream").samples, shuffle_documents=random.choice([2, 5, 30]))
    settings = replace(settings, lengths=settings_of("stream", stride=8).lengths)
    expected = [token for epoch in range(3) for text in documents_of_epoch(parts, settings, epoch) for token in text]
    samples = StreamCursor(parts, reading_ahead(2), settings).take(0, len(expected) // 8)
    assert [token for each in samples for token in each["tokens"].tolist()] == expected[: len(expected) // 8 * 8]
    for epoch in range(3):
        read = sorted(documents_of_epoch(parts, settings, epoch))
        kept = (each for place, part in enumerate(parts) for each in part.entries[settings.reserved_of(place) :])
        assert read == sorted(list(each) for each in kept if each is not None)
