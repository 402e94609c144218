"""Takes samples straight from a text, as training does, and drops them: `python -m data_tools.benchmark.drain ...`.

Prints how many there are in an epoch.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_tools.benchmark.raw_text import stream_request
from data_tools.streams.end_of_data import EndOfData, NoSamples
from data_tools.streams.position import StreamPosition
from data_tools.streams.reader import StreamReader

BATCH = 64
"""samples that are taken together"""
AHEAD = 4 * BATCH
"""samples that are held ready"""


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m data_tools.benchmark.drain")
    for place in ("input", "tokenizer"):
        parser.add_argument(place, type=Path)
    for number in ("--workers", "--cores", "--length"):
        parser.add_argument(number, type=int, required=True)
    given = parser.parse_args(arguments)
    # all of it, this process too, has the cores that a loader has
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    print(drain(given.input, given.tokenizer, given.length, given.workers))
    return 0


def drain(text: Path, tokenizer: Path, length: int, workers: int) -> int:
    """Takes all samples of one epoch; how many there were.

    Args:
        length: tokens that are predicted in a sample.
    """
    reader = StreamReader(stream_request(text, tokenizer, length), StreamPosition(), AHEAD, workers)
    samples = 0
    try:
        while True:
            reader.take(samples, samples + BATCH)
            samples += BATCH
    except EndOfData as end:
        return end.samples
    except NoSamples:
        return 0
    finally:
        reader.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
