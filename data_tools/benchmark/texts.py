"""Texts to measure with, as `.jsonl`: sources and documentation of the installed packages, and random words."""

import hashlib
import json
import os
import sysconfig
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path

import numpy as np

from data_tools.text.recent_characters import RecentCharacters
from megatron_patches.errors import Missing

ENDINGS = (".py", ".md", ".rst", ".txt")
LARGEST_FILE = 4 << 20
"""bytes; larger ones are tables of data, not text that somebody wrote"""
_RANDOM_DOCUMENT = 8000
"""bytes"""
_WORDS_AND_SPACES = 8
"""bytes of a random word and its space, on average"""


def write_installed_text(path: Path, size: int) -> int:
    """Files of this Python's packages, each a document, until the file has `size` bytes; the number of documents.

    They come in the order of the hashes of their names, so that any beginning holds some of all packages, and start
    again where they are used up.

    Raises:
        Missing: the packages hold no text at all.
    """
    files = _installed_files()
    if next(_texts(files), None) is None:
        raise Missing("this Python's packages hold no text to measure with; give a file of your own")
    return _write(path, _texts(cycle(files)), size)


def write_random_words(path: Path, size: int) -> int:
    """Documents of words that are rarely repeated, to show that caches of words are bounded."""
    return _write(path, _random_documents(np.random.default_rng(0)), size)


def write_beginning(path: Path, source: Path, size: int) -> None:
    """The first lines of a file, until they have `size` bytes."""
    written = 0
    with source.open("rb") as lines, path.open("wb") as file:
        for line in lines:
            written += file.write(line)
            if written >= size:
                return


def _write(path: Path, texts: Iterable[str], size: int) -> int:
    written = 0
    with path.open("wb") as file:
        for number, text in enumerate(texts, 1):
            written += file.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
            if written >= size:
                # what is not on the disk yet would be written while the first of those measured runs
                os.fsync(file.fileno())
                return number
    raise AssertionError("the texts never end")


def _installed_files() -> list[Path]:
    names: list[tuple[bytes, Path]] = []
    for root in sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}):
        for folder, _, files in os.walk(root):
            for name in files:
                if name.endswith(ENDINGS):
                    path = Path(folder, name)
                    names.append((hashlib.sha256(os.path.relpath(path, root).encode()).digest(), path))
    return [path for _, path in sorted(names)]


def _texts(files: Iterable[Path]) -> Iterator[str]:
    recent = RecentCharacters()
    for file in files:
        if file.is_file() and file.stat().st_size <= LARGEST_FILE:
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:  # tests of packages hold files in other encodings on purpose
                continue
            if text.strip() and not recent.holders([text]):  # which the second peer, gigatoken alone, cuts otherwise
                yield text


def _random_documents(draw: np.random.Generator) -> Iterator[str]:
    while True:
        letters = draw.integers(ord("a"), ord("z") + 1, _RANDOM_DOCUMENT, dtype=np.uint8)
        letters[draw.random(_RANDOM_DOCUMENT) < 1 / _WORDS_AND_SPACES] = ord(" ")
        yield letters.tobytes().decode("ascii")


def texts_of(path: Path) -> Iterator[str]:
    """The texts of a `.jsonl`."""
    with path.open("rb") as lines:
        for line in lines:
            yield json.loads(line)["text"]
