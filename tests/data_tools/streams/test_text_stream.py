"""Ends, empty sources, bad entries, positions of other streams, reserved documents."""

from dataclasses import replace

import pytest

from data_tools.reading.block import Part
from data_tools.streams.cursor import StreamCursor
from data_tools.streams.end_of_data import EndOfData, NoSamples
from data_tools.streams.position import MOST_REMEMBERED, KnownPositions, StreamPosition
from data_tools.streams.reserved import reserve
from data_tools.streams.settings import StreamSettings
from megatron_patches.errors import Refused, TrainyardError
from tests.data_tools.streams.fakes import MemoryPart, reading_ahead, settings_of

TEXTS = MemoryPart("web", [[number] * 8 for number in range(1, 11)])
"""ten documents of one sample each"""


def cursor_of(parts: list[MemoryPart], settings: StreamSettings, *known: StreamPosition) -> StreamCursor:
    return StreamCursor(parts, reading_ahead(3), settings, known)


def firsts(parts: list[Part], settings: StreamSettings, end: int) -> list[int]:
    return [int(sample["tokens"][0]) for sample in StreamCursor(parts, reading_ahead(0), settings).take(0, end)]


def test_the_end_of_the_last_epoch_says_what_there_was() -> None:
    cursor = cursor_of([TEXTS], settings_of("windows", shuffle_documents=4, max_epochs=2, source="en"))
    assert len(cursor.take(0, 20)) == 20
    for _ in range(2):  # a second call raises again
        with pytest.raises(
            EndOfData, match=r"source en .*2 epochs .*20 documents with 160 tokens.*20 samples; "
        ) as told:
            cursor.take(20, 21)
        assert told.value.samples == 20
    assert len(cursor.take(18, 20)) == 2
    behind = cursor.position_for(20)
    with pytest.raises(EndOfData, match="20 documents"):
        cursor_of([TEXTS], settings_of("windows", shuffle_documents=4, max_epochs=2, source="en"), behind).take(20, 21)


@pytest.mark.parametrize("parts", [[], [MemoryPart("a", [])], [MemoryPart("a", [None]), MemoryPart("b", [])]])
def test_no_documents(parts: list[MemoryPart]) -> None:
    with pytest.raises(NoSamples, match="source data has no documents"):
        cursor_of(parts, settings_of("stream", max_bad=1)).take(0, 1)


def test_all_documents_reserved() -> None:
    with pytest.raises(NoSamples, match="no documents but the 10 that are reserved"):
        cursor_of([TEXTS], settings_of("stream", reserved=(10,))).take(0, 1)


@pytest.mark.parametrize(
    ("kind", "entries"),
    [({"name": "windows", "filters": {"minimum_tokens": 8}}, [[1, 2]] * 5), ("stream", [[]] * 5), ("packs", [[]] * 5)],
)
def test_all_documents_filtered_away(kind: object, entries: list[list[int]]) -> None:
    with pytest.raises(NoSamples, match=r"5 documents with \d+ tokens make no sample"):
        cursor_of([MemoryPart("a", entries)], settings_of(kind, shuffle_documents=2)).take(0, 1)


def test_a_stream_may_need_many_epochs_for_a_sample() -> None:
    (sample,) = cursor_of([MemoryPart("a", [[7]])], settings_of("stream")).take(2, 3)
    assert sample["tokens"].tolist() == [7] * 8


def test_bad_entries_count_in_each_epoch_wherever_reading_begins() -> None:
    part = MemoryPart("a", [[1] * 8, None, [2] * 8, [3] * 8, None, [4] * 8])
    allowed = settings_of("windows", max_bad=2)
    assert firsts([part], allowed, 8) == [1, 2, 3, 4] * 2
    strict = replace(allowed, max_bad=1, shuffle_documents=2)
    one_by_one = replace(part, most=1)
    with pytest.raises(
        TrainyardError, match=r"^/data/a, line 5 is bad \(epoch 1 of source data .*2 such.*max_bad is 1"
    ):
        cursor_of([one_by_one], strict).take(0, 4)
    cursor = cursor_of([one_by_one], replace(strict, max_bad=2))
    cursor.take(0, 2)
    position = cursor.position_for(2)
    assert position.position
    with pytest.raises(TrainyardError, match="line 5 is bad"):
        cursor_of([one_by_one], strict, position).take(2, 4)


def test_an_error_of_reading_comes_behind_what_was_read() -> None:
    failing = replace(TEXTS, fails_behind=8)
    cursor = StreamCursor([failing], reading_ahead(99), settings_of("windows", shuffle_documents=2))
    cursor.take(0, 4)
    with pytest.raises(OSError, match="cannot be read"):
        cursor.take(4, 10)


def test_positions_of_other_streams_are_refused() -> None:
    settings = settings_of("windows", shuffle_documents=2)
    cursor = cursor_of([TEXTS], settings)
    cursor.take(0, 5)
    position = cursor.position_for(5)
    assert position.samples == 4
    assert len(cursor_of([TEXTS], settings, position).take(4, 6)) == 2
    others = [
        replace(settings, seed=2),
        replace(settings, source="other"),
        replace(settings, identity="another tokenizer"),
        replace(settings, shuffle_documents=3),
        replace(settings, reserved=(1,)),
        replace(settings, lengths=settings_of("windows", read=9).lengths),
        replace(settings, samples=settings_of("packs").samples),
    ]
    for other in others:
        with pytest.raises(Refused, match="belongs to other files, another tokenizer or other settings"):
            cursor_of([TEXTS], other, position).take(4, 6)
    with pytest.raises(Refused, match="belongs to other files"):
        cursor_of([replace(TEXTS, name="b")], settings, position).take(4, 6)
    with pytest.raises(Refused, match=r"is of version 0, this Trainyard reads version 1"):
        cursor_of([TEXTS], settings, position.model_copy(update={"version": 0})).take(4, 6)
    assert len(cursor_of([TEXTS], replace(settings, max_epochs=7, max_bad=3), position).take(4, 6)) == 2


def test_reserved_documents_are_never_trained_on() -> None:
    parts = [
        MemoryPart("a", [[1] * 8, [2] * 8]),
        MemoryPart("b", [[3] * 8, [4] * 8, [5] * 8]),
        MemoryPart("c", [[6] * 8]),
    ]
    settings = settings_of("windows", shuffle_documents=3)
    held = reserve(parts, reading_ahead(2), settings, minimum_documents=3, minimum_samples=2)
    assert (held.per_part, held.documents, held.tokens) == ((2, 1), 3, 24)
    assert [int(held[number]["tokens"][0]) for number in range(len(held))] == [1, 2, 3]
    trained = firsts(list(parts), replace(settings, reserved=held.per_part), 9)
    assert [sorted(trained[first : first + 3]) for first in (0, 3, 6)] == [[4, 5, 6]] * 3
    with pytest.raises(IndexError):
        held[3]


@pytest.mark.parametrize("cuts", range(5))
def test_what_is_reserved_does_not_depend_on_how_it_is_read(cuts: int) -> None:
    parts = [replace(TEXTS, cuts=cuts), MemoryPart("b", [[9] * 3] * 40, cuts=cuts)]
    held = reserve(parts, reading_ahead(cuts), settings_of("packs"), minimum_documents=1, minimum_samples=16)
    assert (held.per_part, len(held)) == ((10, 12), 16)


def test_too_little_to_reserve() -> None:
    for documents, samples in ((11, 1), (1, 11)):
        with pytest.raises(EndOfData, match=r"has 10 documents with 80 tokens, which make 10 samples; .*evaluation"):
            reserve([TEXTS], reading_ahead(0), settings_of("windows"), documents, samples)
    with pytest.raises(NoSamples):
        reserve([MemoryPart("a", [])], reading_ahead(0), settings_of("windows"), 1, 1)


def test_positions_are_dense_near_the_end_and_sparse_far_behind() -> None:
    known = KnownPositions([StreamPosition(key="given", samples=500)])
    for number in range(1, 5001):
        known.add(StreamPosition(key="passed", samples=number))
    assert all(known.before(number).samples == number for number in range(4990, 5001))
    assert known.before(5000).samples == known.before(9999).samples == 5000
    assert known.before(510).samples >= 500 and known.before(0) == StreamPosition()
    for back in (100, 400, 1600, 4000):
        assert 5000 - back - known.before(5000 - back).samples <= back / 5
    assert len(known._passed) <= MOST_REMEMBERED
