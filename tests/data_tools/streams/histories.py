"""Histories of a stream: kills, resumes, rollbacks, and changes of all that must not matter."""

import gzip
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.reading.block import Block, Part
from data_tools.reading.documents import LARGEST_DOCUMENT
from data_tools.reading.entries import documents_of
from data_tools.reading.files import sources
from data_tools.reading.hugging_face import open_hub
from data_tools.reading.hugging_face_name import HubSpec
from data_tools.samples.source import Sample
from data_tools.streams.cursor import Cursor, StreamCursor
from data_tools.streams.end_of_data import EndOfData
from data_tools.streams.position import StreamPosition
from data_tools.streams.settings import Encode, StreamSettings
from tests.data_tools.streams.fakes import (
    Document,
    MemoryPart,
    encode,
    encoded_texts,
    settings_of,
)

KINDS: list[Any] = [
    "stream",
    "windows",
    {"name": "windows", "stride": 3, "filters": {"minimum_tokens": 2}},
    "packs",
    {"name": "packs", "longer": "drop", "block_documents": 7},
]
LAST = [[9001, 9002, 9003]] * 3
"""documents of a part that no stream lacks, so that each has samples"""


@dataclass
class Stream:
    """What is read, and the samples of a reading that nothing interrupted."""

    open_parts: Callable[[Random], Sequence[Part]]
    """cut into blocks where it pleases"""
    encode: Encode
    settings: StreamSettings
    expected: dict[str, np.ndarray[Any, Any]]
    """[samples, read] each"""
    has_end: bool
    """whether these are all"""

    @property
    def samples(self) -> int:
        return len(self.expected["tokens"])

    def same(self, found: list[Sample], first: int) -> bool:
        return all(
            np.array_equal(np.stack([sample[name] for sample in found]), rows[first : first + len(found)])
            for name, rows in self.expected.items()
        ) and all(sample.keys() == self.expected.keys() for sample in found)


def some_settings(random: Random, documents: Sequence[int], bad: int) -> StreamSettings:
    """Args: documents: of each part."""
    reserved = tuple(random.choice([0, 0, random.randint(0, count // 2)]) for count in documents)
    return settings_of(
        random.choice(KINDS),
        stride=random.choice([8, 7, 3]),
        seed=random.randrange(100),
        shuffle_documents=random.choice([1, 2, 5, 30]),
        reserved=reserved,
        max_epochs=random.choice([None, 1, 2]),
        max_bad=bad,
    )


def some_entries(random: Random, parts: int, least: int = 0, bad_share: float = 0.1) -> list[list[Document]]:
    """Documents of 0 to 12 tokens, each of which no other document has; some are none."""
    token, found = 1, list[list[Document]]()
    for _ in range(parts):
        entries = list[Document]()
        for _ in range(random.randint(least, 6)):
            length = random.randint(0, 12)
            entries.append(None if random.random() < bad_share else list(range(token, token + length)))
            token += length
        found.append(entries)
    return [*found, list(LAST)]


def stream_of(
    entries: list[list[Document]],
    random: Random,
    open_parts: Callable[[Random], Sequence[Part]],
    encode: Encode,
    most: int,
) -> Stream:
    """A stream of these, and up to `most` of its samples."""
    bad = sum(entry is None for part in entries for entry in part)
    settings = some_settings(random, [len([e for e in part if e is not None]) for part in entries], bad)
    cursor, samples, has_end = StreamCursor(open_parts(random), encode, settings), list[Sample](), False
    try:
        while len(samples) < most:
            samples += cursor.take(len(samples), len(samples) + 1)
    except EndOfData as end:
        assert end.samples == len(samples)
        has_end = True
    cursor.close()
    expected = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    return Stream(open_parts, encode, settings, expected, has_end)


def stream_in_memory(random: Random, most: int) -> Stream:
    """Parts in memory, cut anywhere."""
    entries = some_entries(random, random.randint(0, 3))
    parts = [MemoryPart(f"part{number}", each) for number, each in enumerate(entries)]
    return stream_of(entries, random, partial(cut_elsewhere, parts), encode, most)


def cut_elsewhere(parts: list[MemoryPart], random: Random) -> list[MemoryPart]:
    return [replace(part, cuts=random.randrange(1000)) for part in parts]


def stream_of_files(random: Random, folder: Path, most: int) -> Stream:
    """Files of several formats, read as training reads them; a token is a number in a text."""
    entries = some_entries(random, 3, least=1, bad_share=0)
    for number, each in enumerate(entries):
        write_file(folder, str(number), [" ".join(map(str, entry or ())) for entry in each], random)
    by_name = [entries[int(path.name.partition(".")[0])] for path in sorted(folder.iterdir())]
    parts = sources.parts_of([folder], ["text"]).parts
    return stream_of(by_name, random, lambda _: parts, encode_numbers, most)


def write_file(folder: Path, name: str, texts: list[str], random: Random) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    match random.choice(["jsonl", "json", "gz"]):
        case "jsonl":
            (folder / f"{name}.jsonl").write_bytes(lines)
        case "json":
            (folder / f"{name}.json").write_text(json.dumps([{"text": text} for text in texts]))
        case "gz":  # of two members
            half = lines.find(b"\n") + 1
            (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines[:half], 1) + gzip.compress(lines[half:], 1))


def encode_numbers(
    blocks: Iterable[Block], by_reference: Collection[str] = (), ahead: int = 0
) -> Iterator[tuple[Block, EncodedBlock]]:
    waiting = list[Block]()
    for block in blocks:
        waiting.append(block)
        if len(waiting) > ahead:
            yield _numbers(waiting.pop(0))
    yield from map(_numbers, waiting)


def _numbers(block: Block) -> tuple[Block, EncodedBlock]:
    found = documents_of(block, ["text"], LARGEST_DOCUMENT)
    texts = encoded_texts([list(map(int, text.split())) for text in found.texts[0]])
    return block, EncodedBlock([texts], found.bad, 0)


Open = Callable[[Stream, Random, list[StreamPosition]], Cursor]
"""opens a stream at the places that a checkpoint kept"""


def open_encoding(workers: int) -> AbstractContextManager[Encode]:
    """For reader processes, which are sent it by its name."""
    return nullcontext(partial(encode_numbers, ahead=workers))


def hub_parts(folder: Path, seed: Random) -> Sequence[Part]:
    """The parts of a dataset on disk, also for reader processes."""
    return open_hub(HubSpec.parse(f"hf:{folder}"), None, ["text"]).parts()


def open_here(stream: Stream, random: Random, known: list[StreamPosition]) -> Cursor:
    """In this process, reading some blocks ahead."""
    reading_ahead = partial(stream.encode, ahead=random.choice([0, 1, 7]))  # type: ignore[call-arg]
    return StreamCursor(stream.open_parts(random), reading_ahead, stream.settings, known)


def a_history(random: Random, stream: Stream, open_cursor: Open = open_here) -> int:
    """Reads all samples, with accidents; how often it was opened. `trained` is what a checkpoint would have."""
    trained, saved, opened = 0, StreamPosition(), 0
    cursor: Cursor | None = None
    try:
        while trained < stream.samples:
            if cursor is None:
                cursor = open_cursor(stream, random, [StreamPosition.model_validate_json(saved.model_dump_json())])
                opened += 1
            end = min(trained + random.choice([1, 2, 5, 25]), stream.samples)
            if end > trained:
                assert stream.same(cursor.take(trained, end), trained)
            trained = end
            event = random.random()
            if event < 0.4:
                saved = cursor.position_for(trained)
                assert saved.samples <= trained
            if event < 0.25:
                cursor.close()
                cursor = None
            elif event > 0.9:  # a rollback
                trained = random.randrange(trained)
            elif event > 0.85:  # samples that are left out
                trained = min(trained + 3, stream.samples)
        if cursor is not None and stream.has_end:
            with pytest.raises(EndOfData) as raised:
                cursor.take(stream.samples, stream.samples + 1)
            assert raised.value.samples == stream.samples
    finally:
        if cursor is not None:
            cursor.close()
    return opened


def quick_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories of one stream ask for the same ones again and again, and of few elements they are slow."""
    from data_tools.samples.permutation import permute
    from data_tools.streams import order

    kept = lru_cache(lambda size, key: permute(np.arange(size), size, key))
    monkeypatch.setattr(order, "permute", lambda index, size, key: kept(size, key))
