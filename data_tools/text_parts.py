"""The files of a text source: which are trained on, and which are held out by their names."""

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data_tools.reading.block import Part
from data_tools.reading.parts import file_part
from data_tools.reading.sources import Source, find_sources
from data_tools.streams.text_config import TextConfig
from megatron_patches.errors import Missing
from megatron_patches.foreign.printable import printable

HELD_OUT_NAMES = ("validation", "valid", "eval", "evaluation", "test", "dev")
"""what names of files and folders begin with that are not trained on; the first that there is, is validated on"""
_HELD_OUT = re.compile(rf"({'|'.join(HELD_OUT_NAMES)})(?![a-z])", re.IGNORECASE)
OPTION = "text.key"
"""where the key of texts is asked for, for messages"""


class TextParts(NamedTuple):
    """What a text source consists of."""

    training: list[Part]
    validation: list[Part]
    """those that its names hold out for validation; none where they hold out nothing"""


def parts_of_text(text: TextConfig, checkout: Path) -> TextParts:
    """The parts of a text source, sorted by name; names do not depend on where the files lie.

    Files below a folder that are held out by their own name, or by that of a folder within it, are not trained on.

    Raises:
        TrainyardError: there is nothing to read, it is of an unknown format, or lacks the key.
    """
    if text.is_of_hub:
        return _of_hub(text, checkout)
    given = checkout / text.path
    if not given.is_dir():
        return TextParts(_parts(_files(text, given), text), [])
    found = [Source(path, name.partition("/")[2]) for path, name in find_sources([given], [text.key]).sources]
    held = {each.name: name for each in found if (name := held_out_by(each.name)) is not None}
    training = [each for each in found if each.name not in held]
    if not training:
        raise Missing(
            f"every file of {printable(given)} is held out by its name ({', '.join(sorted(set(held.values())))}); "
            "name the files that are trained on, in text.path"
        )
    chosen = next((name for name in HELD_OUT_NAMES if name in held.values()), None)
    return TextParts(_parts(training, text), _parts([each for each in found if held.get(each.name) == chosen], text))


def held_out_by(name: str) -> str | None:
    """The word by which a file's name, or that of a folder that it lies in, holds it out: `test-00.jsonl`."""
    found = (_HELD_OUT.match(part) for part in name.split("/"))
    return next((match[1].lower() for match in found if match), None)


def _files(text: TextConfig, given: Path) -> list[Source]:
    """The files that a path or a pattern names."""
    pattern = str(given)
    paths = [given]
    if glob.has_magic(pattern) and not given.exists():
        paths = [Path(each) for each in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  absolute
        paths = [each for each in paths if each.is_file()]
        if not paths:
            raise Missing(f"no file fits {printable(pattern)} (text.path); correct it")
    return find_sources(paths, [text.key]).sources


def _parts(files: Iterable[Source], text: TextConfig) -> list[Part]:
    return [file_part(path, name, [text.key], option=OPTION) for path, name in files]


def _of_hub(text: TextConfig, checkout: Path) -> TextParts:
    raise NotImplementedError


def listed(parts: Sequence[Part]) -> list[tuple[str, int]]:
    """Name and bytes of each part."""
    return [(part.name, part.size) for part in parts]
