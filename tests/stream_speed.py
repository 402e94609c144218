"""How many tokens a reader of text gives without a model: python -m tests.stream_speed FOLDER TOKENIZER.

CPU seconds are what counts on a machine that others use, too. They are taken between two samples, so that starting is
not among them, of the process that reads (it shuffles, cuts and sends), of its workers (they tokenize), and of this
one, which receives samples as int64.
"""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from data_tools.encoding.pool import EncodingPool
from data_tools.encoding.recipe import Recipe
from data_tools.plans.samples_config import SAMPLES
from data_tools.reading.block import Part
from data_tools.reading.files.sources import parts_of
from data_tools.samples.lengths import SampleLengths
from data_tools.streams.messages import StreamRequest
from data_tools.streams.position import StreamPosition
from data_tools.streams.reader import StreamReader
from data_tools.streams.settings import Encode, StreamSettings

TICKS = os.sysconf("SC_CLK_TCK")
READ = 2049


@contextmanager
def pool_of(recipe: Recipe, workers: int) -> Iterator[Encode]:
    """The encoding of a pool."""
    with EncodingPool(recipe, workers) as pool:
        yield pool.encode


def open_files(folder: Path) -> list[Part]:
    """The files of a folder."""
    return list(parts_of([folder], ["text"]).parts)


def children_of(process: int) -> list[int]:
    """Processes that it started."""
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(each) for one in lists for each in one.read_text().split()]


def cpu_seconds(process: int) -> float:
    """CPU seconds of a process up to now."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--kind", default="stream")
    parser.add_argument("--shuffle", type=int, default=1000)
    options = parser.parse_args()
    lengths = SampleLengths(READ, READ - 1, (("tokens", READ - 1),), READ - 1)
    settings = StreamSettings(SAMPLES.validate(options.kind), lengths, seed=1, shuffle_documents=options.shuffle)
    from tests.stream_speed import open_files, pool_of  # by a name that another process finds, too

    opened = partial(pool_of, Recipe(options.tokenizer, append_eod=True))
    request = StreamRequest(settings, partial(open_files, options.folder), opened)
    reader = StreamReader(request, StreamPosition(), prefetch_samples=256, workers=options.workers)
    try:
        first = options.samples // 4
        for number in range(0, first, 32):
            reader.take(number, number + 32)
        (process,) = children_of(os.getpid())
        groups = {"reads": [process], "tokenize": children_of(process), "receives": [os.getpid()]}
        before = {name: sum(map(cpu_seconds, each)) for name, each in groups.items()}
        began, number = time.monotonic(), (first + 31) // 32 * 32
        begun_at = number
        while number < options.samples:
            reader.take(number, number + 32)
            number += 32
        seconds = time.monotonic() - began
        spent = {name: sum(map(cpu_seconds, each)) - before[name] for name, each in groups.items()}
    finally:
        reader.close()
    tokens = (number - begun_at) * (READ - 1)
    told = ", ".join(f"{name} {tokens / max(each, 1 / TICKS) / 1e6:.1f}" for name, each in spent.items())
    print(f"{options.kind}: {tokens / 1e6:.1f} M tokens; M tokens per CPU second: {told}")
    print(f"all {tokens / sum(spent.values()) / 1e6:.2f}; wall {tokens / seconds / 1e6:.2f} M tokens/s")


if __name__ == "__main__":
    main()
