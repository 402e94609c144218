"""The files of a text source: which are trained on, and which are held out by their names."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from data_tools.reading.block import Part
from data_tools.reading.files.file_part import FilePart
from data_tools.reading.files.sources import parts_of
from data_tools.reading.hugging_face import HubDataset, open_hub
from data_tools.reading.hugging_face_name import PREFIX as HUB
from data_tools.reading.hugging_face_name import HubSpec, evaluation_split
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
    identity: dict[str, JsonValue] | None = None
    """what the hub says that it is; None of files"""
    validation_told: str = ""
    """what holds them out, for people"""


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
        return TextParts(_files(text, given), [])
    found = _parts(text, [given])
    for part in found:
        part.name = part.name.partition("/")[2]  # what the folder is called is no part of what lies in it
    held = {part.name: word for part in found if (word := held_out_by(part.name)) is not None}
    training: list[Part] = [part for part in found if part.name not in held]
    if not training:
        raise Missing(
            f"every file of {printable(given)} is held out by its name ({', '.join(sorted(set(held.values())))}); "
            "name the files that are trained on, in text.path"
        )
    chosen = next((name for name in HELD_OUT_NAMES if name in held.values()), None)
    validation: list[Part] = [part for part in found if chosen is not None and held.get(part.name) == chosen]
    return TextParts(training, validation, None, f"files named {chosen}")


def place_of(part: Part) -> str:
    """The same for the same part, whatever names it: the real path of a file, a shard of the hub."""
    return os.path.realpath(part.path) if isinstance(part, FilePart) else part.origin


def held_out_by(name: str) -> str | None:
    """The word by which a file's name, or that of a folder that it lies in, holds it out: `test-00.jsonl`."""
    found = (_HELD_OUT.match(part) for part in name.split("/"))
    return next((match[1].lower() for match in found if match), None)


def _files(text: TextConfig, given: Path) -> list[Part]:
    """The files that a path or a pattern names."""
    pattern, paths = str(given), [given]
    if glob.has_magic(pattern) and not given.exists():
        paths = [Path(each) for each in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  absolute
        paths = [each for each in paths if each.is_file()]
        if not paths:
            raise Missing(f"no file fits {printable(pattern)} (text.path); correct it")
    return list(_parts(text, paths))


def _parts(text: TextConfig, paths: Sequence[Path]) -> list[FilePart]:
    return parts_of(paths, [text.key], option=OPTION).parts


def _of_hub(text: TextConfig, checkout: Path) -> TextParts:
    spec = HubSpec.parse(_from(text.path, checkout))
    training = _opened(spec, text, text.split)
    name = evaluation_split([each for each in training.splits if each != training.split])
    validation = _opened(spec, text, name).parts() if name is not None else []
    return TextParts(training.parts(), validation, training.identity, f"split {name}")


def _from(path: str, checkout: Path) -> str:
    """The same with a folder below the checkout written out."""
    bare, mark, configuration = path.removeprefix(HUB).partition("#")
    return f"{HUB}{checkout / bare}{mark}{configuration}" if (checkout / bare).is_dir() else path


def _opened(spec: HubSpec, text: TextConfig, split: str | None) -> HubDataset:
    return open_hub(spec, split, [text.key], text.revision, text.streaming, text.timeout_seconds, text.retries)
