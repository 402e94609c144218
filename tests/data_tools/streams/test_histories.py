"""A thousand histories of kills, resumes and jumps: the same samples in any of them. See `histories`."""

import hashlib
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from data_tools.reading.files import lines_part
from data_tools.samples.permutation import permute
from data_tools.streams import text_stream
from data_tools.streams.cursor import StreamCursor
from data_tools.streams.settings import StreamSettings
from tests.data_tools.streams.fakes import MemoryPart, parts_of, reading_ahead, settings_of
from tests.data_tools.streams.histories import (
    a_history,
    quick_permutations,
    some_settings,
    stream_in_memory,
    stream_of_files,
)


@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_histories_of_five_streams(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of them in memory, one of files. Histories with reader processes are in `tests.torture.streams`."""
    quick_permutations(monkeypatch)
    random = Random(seed)
    for of in range(5):
        most = random.choice([4, 12, 20])
        stream = stream_of_files(random, tmp_path, most) if of == 4 else stream_in_memory(random, most)
        for _ in range(20):
            monkeypatch.setattr(text_stream, "CHUNK_TOKENS", random.choice([8, 30, 1 << 17]))
            monkeypatch.setattr(lines_part, "BLOCK_BYTES", random.choice([50, 1 << 12]))
            a_history(random, stream)


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
    settings = some_settings(random, [len(part.entries) for part in parts], bad=0)
    shuffle = random.choice([2, 5, 30])
    settings = replace(settings, samples=settings_of("stream").samples, shuffle_documents=shuffle, max_epochs=None)
    settings = replace(settings, lengths=settings_of("stream", stride=8).lengths)
    expected = [token for epoch in range(3) for text in documents_of_epoch(parts, settings, epoch) for token in text]
    samples = StreamCursor(parts, reading_ahead(2), settings).take(0, len(expected) // 8)
    assert [token for each in samples for token in each["tokens"].tolist()] == expected[: len(expected) // 8 * 8]
    for epoch in range(3):
        read = sorted(documents_of_epoch(parts, settings, epoch))
        kept = (each for place, part in enumerate(parts) for each in part.entries[settings.reserved_of(place) :])
        assert read == sorted(list(each) for each in kept if each is not None)
