"""The long form of `tests.data_tools.streams.test_histories`: reader processes, files and a dataset on disk (`hf:`)."""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from random import Random

from data_tools.streams.cursor import Cursor
from data_tools.streams.messages import StreamRequest
from data_tools.streams.position import StreamPosition
from data_tools.streams.reader import StreamReader
from tests.data_tools.streams.histories import (
    Stream,
    a_history,
    encode_numbers,
    hub_parts,
    open_encoding,
    some_entries,
    stream_in_memory,
    stream_of,
    stream_of_files,
)

HISTORIES = 3
"""of a stream; each starts about four processes"""


def open_process(stream: Stream, random: Random, known: list[StreamPosition]) -> Cursor:
    """By a process that reads ahead."""
    request = StreamRequest(stream.settings, partial(list, stream.open_parts(random)), open_encoding)
    return StreamReader(request, known[0], random.choice([1, 10, 200]), random.choice([1, 3, 9]))


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


def rounds_of(rounds: int, seed: int) -> int:
    """Histories of streams: of each round 20 in memory, and with reader processes some over files and over a dataset.

    Returns:
        How often a stream was opened.

    Raises:
        AssertionError: a history gave other samples than the uninterrupted reading.
    """
    opened = 0
    for number in range(seed, seed + rounds):
        random = Random(number)
        in_memory = stream_in_memory(random, 60)
        opened += sum(a_history(random, in_memory) for _ in range(20))
        with tempfile.TemporaryDirectory() as files, tempfile.TemporaryDirectory() as dataset:
            for stream in (stream_of_files(random, Path(files), 60), stream_of_hub(random, Path(dataset), 60)):
                opened += sum(a_history(random, stream, open_process) for _ in range(HISTORIES))
    return opened


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.torture.streams")
    parser.add_argument("--rounds", type=int, default=5, help="each of 20 histories in memory and 6 with processes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(f"{options.rounds} rounds, {rounds_of(options.rounds, options.seed):,} openings, no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
