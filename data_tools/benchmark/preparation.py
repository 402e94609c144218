"""What a comparison needs before it: a text, and a tokenizer."""

from dataclasses import dataclass
from pathlib import Path

from data_tools.benchmark.small_tokenizers import Kind, train_small
from data_tools.benchmark.texts import write_beginning, write_installed_text, write_random_words
from megatron_patches.errors import Missing
from megatron_patches.foreign.printable import printable

SAMPLE = 10_000_000
"""bytes of text that a tokenizer is trained on"""
VOCAB_SIZE = 16_000
"""ids, where none are asked for"""


@dataclass(frozen=True)
class TextRequest:
    """Which text: one of the three."""

    file: Path | None
    installed: int | None
    """bytes"""
    random: int | None
    """bytes"""


@dataclass(frozen=True)
class Text:
    """A text that is ready."""

    path: Path
    words: str
    """what it is"""


def prepare_text(request: TextRequest, folder: Path) -> Text:
    """Writes the text, unless it is a file.

    Raises:
        Missing: there is no such file.
    """
    if request.file is not None:
        if not request.file.is_file():
            raise Missing(f"{printable(request.file)} is no file; give a .jsonl with the key text")
        return Text(request.file.resolve(), request.file.name)
    path = folder / "text.jsonl"
    if request.installed is not None:
        return Text(path, f"{write_installed_text(path, request.installed):,} files of installed packages")
    assert request.random is not None
    return Text(path, f"{write_random_words(path, request.random):,} documents of random words")


def prepare_tokenizer(kind: Kind, vocab_size: int, request: TextRequest, text: Text, folder: Path) -> Path:
    """Trains a tokenizer on the beginning of the text; for random words, on that of the installed packages."""
    sample = folder / "sample.jsonl"
    if request.random is not None:
        write_installed_text(sample, SAMPLE)
    else:
        write_beginning(sample, text.path, SAMPLE)
    train_small(kind, sample, folder / kind, vocab_size)
    return folder / kind
