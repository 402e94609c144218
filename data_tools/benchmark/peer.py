"""What the peers' command lines share: `python -m data_tools.benchmark.NAME INPUT TOKENIZER PREFIX --end ID ...`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CANNOT = 3
"""exit code of a peer that cannot take this tokenizer; the last line that it prints says why"""
_DTYPES = ("<u2", "<i4")


@dataclass(frozen=True)
class PeerRequest:
    """What a peer makes."""

    input: Path
    """`.jsonl` with the key `text`"""
    model: Path
    """`tokenizer.json`, or SentencePiece's `.model`"""
    prefix: Path
    end: int
    """id after each document that has tokens"""
    dtype: np.dtype[Any]
    workers: int


def read_request(arguments: Sequence[str], name: str) -> PeerRequest:
    """A peer's command line."""
    parser = argparse.ArgumentParser(f"python -m data_tools.benchmark.{name}")
    for place in ("input", "model", "prefix"):
        parser.add_argument(place, type=Path)
    for number in ("--end", "--workers"):
        parser.add_argument(number, type=int, required=True)
    parser.add_argument("--dtype", choices=_DTYPES, required=True)
    given = parser.parse_args(arguments)
    return PeerRequest(given.input, given.model, given.prefix, given.end, np.dtype(given.dtype), given.workers)
