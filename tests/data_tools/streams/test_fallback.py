"""A library that gives other ids while a stream is read: the same samples, wherever reading begins."""

import json
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest

from data_tools.encoding import choice
from data_tools.encoding.encoded_block import EncodedBlock
from data_tools.encoding.proof import DifferentIds
from data_tools.encoding.recipe import Recipe
from data_tools.reading.block import Block
from data_tools.reading.files.sources import parts_of as file_parts_of
from data_tools.samples.source import Sample
from data_tools.streams.cursor import StreamCursor
from data_tools.streams.position import StreamPosition
from data_tools.streams.settings import Encode, StreamSettings
from data_tools.streams.text_stream import TextStream
from data_tools.text_sources.encoding import open_encoding
from tests.data_tools.encoding.test_different_ids import BAD, Broken, wrong
from tests.data_tools.streams.fakes import MemoryPart, encode, settings_of

FOUND = 77
"""a token at which the library's mistake is found; it is wrong about all others, and nobody notices"""
FAST = 1000
"""what the library adds to ids"""
PARTS = [
    MemoryPart(f"part{number}", [[FOUND if token == 77 else token] * 8 for token in range(first, first + 24)], most=1)
    for number, first in enumerate((1, 31, 61, 91))
]


def wrong_library(
    blocks: Iterable[Block], by_reference: Collection[str] = (), ahead: int = 0
) -> Iterator[tuple[Block, EncodedBlock]]:
    for block, encoded in encode(blocks, ahead=ahead):
        texts = encoded.texts[0]
        if block.origin not in by_reference:
            if FOUND in texts.tokens:
                raise DifferentIds(block.origin, f"{block.origin}, line {block.first}", "fast", "gives other ids")
            texts = texts._replace(tokens=texts.tokens + FAST)
        yield block, encoded._replace(texts=[texts])


def tokens_of(samples: list[Sample]) -> list[int]:
    return [int(sample["tokens"][0]) for sample in samples]


@pytest.mark.parametrize("shuffle", [4, 5])
def test_the_block_of_the_document_and_all_behind_are_the_references(
    shuffle: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of({"name": "windows"}, shuffle_documents=shuffle)
    right = tokens_of(StreamCursor(PARTS, encode, settings).take(0, 200))
    at = right.index(FOUND)
    first = at // settings.block_documents * settings.block_documents
    expected = [token + FAST for token in right[:first]] + right[first:]
    cursor = StreamCursor(PARTS, partial(wrong_library, ahead=3), settings)
    assert tokens_of(cursor.take(0, 200)) == expected
    told = capsys.readouterr().err
    assert told.count("note:") == 1 and "/data/part2, line 17: fast gives other ids" in told
    for number in (0, first - 1, first, first + 1, at, 95, 96, 150):
        position = StreamPosition.model_validate_json(cursor.position_for(number).model_dump_json())
        assert position.by_reference == (position.samples > first)
        again = StreamCursor(PARTS, partial(wrong_library, ahead=number % 7), settings, [position])
        assert tokens_of(again.take(number, number + 12)) == expected[number : number + 12]


def test_a_thread_that_reads_ahead_falls_back_too() -> None:
    settings = settings_of({"name": "windows"}, shuffle_documents=5, max_epochs=2)
    here, ahead = (TextStream(PARTS, wrong_library, settings, ahead) for ahead in (False, True))

    def samples(stream: TextStream) -> list[list[int]]:
        found: list[list[int]] = []
        chunks = stream.chunks(StreamPosition())
        while len(found) < 150:
            found += next(chunks).arrays["tokens"].tolist()
        return found

    assert samples(here) == samples(ahead)


def open_cursor(folder: Path, encode: Encode, settings: StreamSettings, *known: StreamPosition) -> StreamCursor:
    return StreamCursor(file_parts_of([folder], ["text"]).parts, encode, settings, known)


def test_files_and_workers(tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(3)
    texts = [" ".join(random.choices(["one", "two", "\u00e9t\u00e9", "x"], k=9)) for _ in range(120)]
    for name, lines in {"a": texts, "b": [*texts[:70], BAD, *texts[70:]], "c": texts}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    monkeypatch.setattr(choice, "FAST_LIBRARIES", {"BPE": {"broken": lambda *_: Broken(tokenizer_folder, wrong)}})
    settings = settings_of("stream", read=16, shuffle_documents=50)
    recipe = Recipe(tokenizer_folder, append_eod=True)
    with open_encoding(Recipe(tokenizer_folder, append_eod=True, library="tokenizers"), False, 1) as reference:
        expected = open_cursor(tmp_path, reference, settings).take(0, 400)
    with open_encoding(recipe, False, 2) as fast:
        cursor = open_cursor(tmp_path, fast, settings)
        found = cursor.take(0, 400)
        cursor.close()
        places = [cursor.position_for(number) for number in (40, 399)]
        assert [each.by_reference for each in places] == [False, True]
        for number, place in zip((40, 399), places, strict=True):
            again = open_cursor(tmp_path, fast, settings, place)
            found.append(again.take(number, number + 1)[0])
            again.close()
    expected += [expected[40], expected[399]]
    assert all(np.array_equal(one["tokens"], other["tokens"]) for one, other in zip(found, expected, strict=True))
