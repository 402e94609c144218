"""The long form of `tests.data_tools.streams.test_histories`: reader processes, files and a dataset on disk (`hf:`)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from random import Random

import pytest

from data_tools.reading.block import Part
from data_tools.reading.hugging_face import open_hub
from data_tools.reading.hugging_face_name import HubSpec
from data_tools.streams.cursor import Cursor
from data_tools.streams.messages import StreamRequest
from data_tools.streams.position import StreamPosition
from data_tools.streams.reader import StreamReader
from data_tools.streams.settings import Encode
from tests.data_tools.streams.histories import (
    Stream,
    a_history,
    encode_numbers,
    some_entries,
    stream_in_memory,
    stream_of,
    stream_of_files,
)

pytestmark = pytest.mark.slow

HISTORIES = 3
"""of a stream; each starts about four processes"""


def open_encoding(workers: int) -> AbstractContextManager[Encode]:
    return nullcontext(partial(encode_numbers, ahead=workers))


def open_process(stream: Stream, random: Random, known: list[StreamPosition]) -> Cursor:
    """By a process that reads ahead."""
    request = StreamRequest(stream.settings, partial(list, stream.open_parts(random)), open_encoding)
    return StreamReader(request, known[0], random.choice([1, 10, 200]), random.choice([1, 3, 9]))


def hub_parts(folder: Path, seed: Random) -> Sequence[Part]:
    return open_hub(HubSpec.parse(f"hf:{folder}"), None, ["text"]).parts()


def stream_of_hub(random: Random, folder: Path, most: int) -> Stream:
    """A folder of parquet files, one for each part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    entries = some_entries(random, 3, least=2, bad_share=0)
    for number, each in enumerate(entries):
        texts = [" ".join(map(str, entry or ())) for entry in each]
        name = f"train-{number:05d}-of-{len(entries):05d}.parquet"
        pq.write_table(pa.table({"text": texts}), folder / name, row_group_size=2)
    return stream_of(entries, random, partial(hub_parts, folder), encode_numbers, most)


@pytest.mark.parametrize("seed", range(1000, 1003))
def test_processes_that_read_files(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    stream = stream_of_files(random, tmp_path, 60)
    assert sum(a_history(random, stream, open_process) for _ in range(HISTORIES)) > HISTORIES


@pytest.mark.parametrize("seed", range(2000, 2002))
def test_processes_that_read_a_dataset_on_disk(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    stream = stream_of_hub(random, tmp_path, 60)
    assert sum(a_history(random, stream, open_process) for _ in range(HISTORIES)) > HISTORIES


@pytest.mark.parametrize("seed", range(3000, 3100))
def test_thousands_of_histories(seed: int) -> None:
    random = Random(seed)
    stream = stream_in_memory(random, 60)
    for _ in range(20):
        a_history(random, stream)
