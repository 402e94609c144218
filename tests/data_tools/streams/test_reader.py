"""Reader processes: the samples of a cursor in this process, whatever happens to either process."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest

from data_tools.samples.source import Sample
from data_tools.streams.cursor import StreamCursor
from data_tools.streams.end_of_data import EndOfData, NoSamples
from data_tools.streams.messages import StreamRequest
from data_tools.streams.position import StreamPosition
from data_tools.streams.reader import StreamReader
from data_tools.streams.settings import StreamSettings
from megatron_patches.errors import Damaged, Refused, TrainyardError
from tests.data_tools.streams.fakes import Accident, MemoryPart, open_encoding, parts_of, reading_ahead, settings_of

pytestmark = pytest.mark.slow  # each starts a process, which imports for a second

BEGINNING = StreamPosition()
SETTINGS = settings_of({"name": "packs"}, shuffle_documents=5)


def request_of(parts: Sequence[MemoryPart], settings: StreamSettings = SETTINGS) -> StreamRequest:
    return StreamRequest(settings, partial(list, parts), open_encoding)


@contextmanager
def reader_of(
    parts: Sequence[MemoryPart], settings: StreamSettings = SETTINGS, start: StreamPosition = BEGINNING, ahead: int = 20
) -> Iterator[StreamReader]:
    reader = StreamReader(request_of(parts, settings), start, prefetch_samples=ahead, workers=2)
    try:
        yield reader
    finally:
        began = time.monotonic()
        reader.close()
        assert time.monotonic() - began < 4


def same(found: list[Sample], expected: list[Sample]) -> None:
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        assert left.keys() == right.keys()
        assert all(left[name].dtype == np.int64 and np.array_equal(left[name], right[name]) for name in left)


def test_samples_of_a_process_are_those_of_a_cursor() -> None:
    parts = parts_of(Random(1), 3, most=60)
    expected = StreamCursor(parts, reading_ahead(0), SETTINGS).take(0, 300)
    with reader_of(parts) as reader:
        same(reader.take(0, 7), expected[:7])
        same(reader.take(7, 7), [])
        same(reader.take(7, 250), expected[7:250])
        saved = json.loads(reader.position_for(250).model_dump_json())
    start = StreamPosition.model_validate(saved)
    assert 0 < start.samples <= 250
    with reader_of([MemoryPart(each.name, each.entries, cuts=9) for each in parts], start=start, ahead=1) as reader:
        same(reader.take(250, 300), expected[250:])
        same(reader.take(3, 9), expected[3:9])  # back, further than its own start


@pytest.mark.parametrize(
    ("part", "settings", "error", "told"),
    [
        (Accident("a", [[1] * 8] * 5, what="damaged"), SETTINGS, Damaged, "/data/a is cut off"),
        (Accident("a", [[1] * 8] * 5, what="mistaken"), SETTINGS, TrainyardError, "KeyError: 'nothing of this name'"),
        (Accident("a", [[1] * 8] * 5, what="killed"), SETTINGS, TrainyardError, r"source data was killed by SIGKILL"),
        (Accident("a", [[1] * 8] * 5, what="exits"), SETTINGS, TrainyardError, "source data ended with code 7"),
        (MemoryPart("a", [[1] * 8] * 5), settings_of("packs", max_epochs=1), EndOfData, "which made 5 samples"),
        (MemoryPart("a", []), SETTINGS, NoSamples, "has no documents"),
    ],
    ids=lambda value: getattr(value, "what", None),
)
def test_errors_arrive_behind_what_was_read(
    part: MemoryPart, settings: StreamSettings, error: type[Exception], told: str
) -> None:
    with reader_of([part], settings) as reader:
        with pytest.raises(error, match=told) as raised:
            reader.take(0, 9)
        assert type(raised.value) is error
        if isinstance(raised.value, EndOfData):
            assert raised.value.samples == 5
            assert len(reader.take(0, 5)) == 5


def test_what_cannot_be_sent_or_opened() -> None:
    with pytest.raises(Exception, match="pickle"):
        StreamReader(StreamRequest(SETTINGS, lambda: [], open_encoding), BEGINNING, 1, 1)
    other = StreamPosition(key="other", samples=3)
    with reader_of([], start=other) as reader, pytest.raises(Refused, match="belongs to other files"):
        reader.take(3, 4)


def test_a_slow_source_is_waited_for() -> None:
    with reader_of([Accident("a", [[1] * 8] * 5, what="slow")]) as reader:
        assert len(reader.take(0, 12)) == 12


def wait_for_number(marker: Path) -> int:
    deadline = time.monotonic() + 60
    while not (marker.exists() and marker.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(marker.read_text())


def wait_for_end(process: int) -> None:
    deadline = time.monotonic() + 5
    while Path(f"/proc/{process}").exists() and "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text():
        assert time.monotonic() < deadline, f"process {process} lives"
        time.sleep(0.02)


def test_closing_ends_a_process_that_stalls(tmp_path: Path) -> None:
    marker = tmp_path / "number"
    with reader_of([Accident("a", [[1] * 8], what="stalls", marker=marker)]):
        process = wait_for_number(marker)
    assert not Path(f"/proc/{process}").exists()


PARENT = """
import sys, time
from pathlib import Path
from tests.data_tools.streams.test_reader import Accident, StreamReader, request_of, BEGINNING
part = Accident("a", [[1] * 8], what="stalls", marker=Path(sys.argv[1]))
reader = StreamReader(request_of([part]), BEGINNING, 5, 1)
time.sleep(600)
"""


def test_a_process_ends_with_its_parent(tmp_path: Path) -> None:
    marker = tmp_path / "number"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(marker)], env=os.environ | {"PYTHONPATH": str(Path.cwd())}
    )
    process = wait_for_number(marker)
    parent.kill()
    parent.wait()
    wait_for_end(process)


def test_a_process_reads_no_further_than_it_may(tmp_path: Path) -> None:
    marker = tmp_path / "number"
    part = Accident("a", [[1] * 1024] * 4000, what="stalls", marker=marker)
    settings = settings_of("windows", read=1024, shuffle_documents=10)
    with reader_of([part], settings, ahead=130) as reader:
        reader.take(0, 1)
        time.sleep(1)
        assert not marker.exists()


def test_a_process_has_no_torch() -> None:
    part = Accident("a", [[1] * 8], what="imports")
    with reader_of([part]) as reader, pytest.raises(TrainyardError, match="numpy") as raised:
        reader.take(0, 9)
    assert not {"torch", "pyarrow", "datasets", "transformers"} & set(str(raised.value).split())
