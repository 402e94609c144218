"""Reader processes: the samples of a cursor in this process, whatever happens to either process."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from random import Random

import numpy as np
import pytest

from data_tools.samples.source import Sample
from data_tools.streams import reader as reader_module
from data_tools.streams.cursor import StreamCursor
from data_tools.streams.end_of_data import EndOfData, NoSamples
from data_tools.streams.messages import StreamRequest, receive, send_error
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
    """Three processes: one is slow, one goes on from a place of the first, and from back there again."""
    parts: list[MemoryPart] = [Accident("slow", [[7] * 9] * 30, what="slow"), *parts_of(Random(1), 3, most=60)]
    expected = StreamCursor([MemoryPart(each.name, each.entries) for each in parts], reading_ahead(0), SETTINGS).take(
        0, 300
    )
    with reader_of(parts) as reader:
        same(reader.take(0, 7), expected[:7])
        same(reader.take(7, 7), [])
        same(reader.take(7, 90), expected[7:90])
        saved = json.loads(reader.position_for(90).model_dump_json())
    start = StreamPosition.model_validate(saved)
    assert 0 < start.samples <= 90
    with reader_of([MemoryPart(each.name, each.entries, cuts=9) for each in parts], start=start, ahead=1) as reader:
        same(reader.take(90, 300), expected[90:])
        same(reader.take(3, 9), expected[3:9])  # back, further than its own start


def test_an_error_arrives_behind_what_was_read_and_no_process_has_torch() -> None:
    with reader_of([Accident("a", [[1] * 8] * 5, what="imports")]) as reader:
        with pytest.raises(TrainyardError, match="numpy") as raised:
            reader.take(0, 9)
        assert not {"torch", "pyarrow", "datasets", "transformers"} & set(str(raised.value).split())


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (Damaged("/data/a is cut off"), Damaged, "/data/a is cut off"),
        (KeyError("nothing of this name"), TrainyardError, "KeyError: 'nothing of this name'"),
        (EndOfData("which made 5 samples", 5), EndOfData, "which made 5 samples"),
        (NoSamples("has no documents"), NoSamples, "has no documents"),
        (Refused("belongs to other files"), Refused, "belongs to other files"),
    ],
)
def test_errors_keep_their_kind(error: Exception, kind: type[TrainyardError], told: str) -> None:
    receiving, sending = Pipe(duplex=False)
    with receiving, sending:
        send_error(sending, error)
        received = receive(receiving)
    assert type(received) is kind and told in str(received)
    if isinstance(error, EndOfData):
        assert isinstance(received, EndOfData) and received.samples == error.samples


@pytest.mark.parametrize(
    ("process", "told"), [("killed", "source data was killed by SIGKILL"), ("exits", "source data ended with code 7")]
)
def test_a_process_that_says_nothing(process: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "PROCESS", f"tests.data_tools.streams.{process}")
    with reader_of([]) as reader, pytest.raises(TrainyardError, match=told):
        reader.take(0, 9)


def test_what_cannot_be_sent() -> None:
    with pytest.raises(Exception, match="pickle"):
        StreamReader(StreamRequest(SETTINGS, lambda: [], open_encoding), BEGINNING, 1, 1)


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


PARENT = """
import sys, time
from pathlib import Path
from functools import partial
from data_tools.streams.messages import StreamRequest
from data_tools.streams.position import StreamPosition
from data_tools.streams.reader import StreamReader
from tests.data_tools.streams.fakes import Accident, open_encoding, settings_of
part = Accident("a", [[1] * 8], what="stalls", marker=Path(sys.argv[1]))
request = StreamRequest(settings_of("packs"), partial(list, [part]), open_encoding)
reader = StreamReader(request, StreamPosition(), 5, 1)
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


def test_a_process_reads_no_further_than_it_may_and_ends_where_it_stalls(tmp_path: Path) -> None:
    marker = tmp_path / "number"
    part = Accident("a", [[1] * 1024] * 1500, what="stalls", marker=marker)
    settings = settings_of("windows", read=1024, shuffle_documents=10)
    with reader_of([part], settings, ahead=130) as reader:
        reader.take(0, 1)
        time.sleep(0.5)
        assert not marker.exists()
        reader.take(1, 1400)
        process = wait_for_number(marker)
    assert not Path(f"/proc/{process}").exists()
