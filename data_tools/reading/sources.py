"""Files of documents below what a user names: links are followed, and what is not read is known by name."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_tools.reading.block import Part
from data_tools.reading.documents import FORMS, LARGEST_DOCUMENT, TEXT, form_of, read_documents
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.foreign.printable import printable, shortened, storable

NOT_READ_NAMED = 100
"""names of left-out files in a manifest; their number is there too"""

Reader = Callable[[Path, Sequence[str]], Iterator[object]]
"""a file and the keys that are asked of it: what it holds, one by one"""


class Source(NamedTuple):
    """One file of documents."""

    path: Path
    name: str
    """How manifests call it: the file's name, behind the folder's if a folder was given; no machine's path."""


class NotRead(NamedTuple):
    """Something in a folder that is left out."""

    name: str
    reason: str


@dataclass(frozen=True)
class FoundSources:
    """What there is to read, and what a folder holds beside it."""

    sources: list[Source]
    not_read: list[NotRead]


def find_sources(
    inputs: Sequence[Path], json_keys: Sequence[str] = ("text",), read: Reader = read_documents
) -> FoundSources:
    """Lists the files to read, in order: files as given, a folder's files below it sorted by path.

    Of a folder, files of unknown endings and .json files that hold no documents, such as a dataset's description, are
    left out. Links to folders are followed; a folder that several lead to is read once.

    Args:
        read: how a file is read, to see whether a .json of a folder holds documents.

    Raises:
        TrainyardError: an input is missing, empty or of an unknown format, or a folder has no file of a known one.
    """
    found = FoundSources([], [])
    for given in inputs:
        if given.is_dir():
            _add_folder(given, json_keys, read, found)
        elif not given.exists():
            raise Missing(f"source {printable(given)} does not exist; give files or folders of text")
        elif not given.is_file():
            raise Refused(f"source {printable(given)} is a pipe, socket or device; write what it gives into a file")
        elif form_of(given.name) is None:
            raise TrainyardError(
                f"source {printable(given)} is of an unknown format; convert it, or rename it if it holds one of "
                f"{FORMS}"
            )
        else:
            found.sources.append(Source(given, storable(given.name)))
    for source in found.sources:
        if source.path.stat().st_size == 0 and source.path.suffix.lower() != TEXT:
            raise Damaged(f"source {printable(source.path)} is empty (0 bytes); copy it again, or leave it out")
    return found


def _add_folder(given: Path, json_keys: Sequence[str], read: Reader, found: FoundSources) -> None:
    root = storable(given.resolve().name)
    before = len(found.sources)
    files: list[Path] = []
    for path, reason in _walk(given):
        if reason is None:
            files.append(path)
        else:
            found.not_read.append(NotRead(f"{root}/{storable(path.relative_to(given).as_posix())}", reason))
    for path in sorted(files):
        name = f"{root}/{storable(path.relative_to(given).as_posix())}"
        reason = _why_no_documents(path, json_keys, read)
        if reason is None:
            found.sources.append(Source(path, name))
        else:
            found.not_read.append(NotRead(name, reason))
    if len(found.sources) == before:
        there = f" ({describe_not_read(found.not_read)})" if found.not_read else ""
        raise TrainyardError(
            f"folder {printable(given)} has no file with documents{there}; give another one, with files "
            f"ending in {FORMS}"
        )


def _walk(root: Path) -> Iterator[tuple[Path, str | None]]:
    """Files below a folder, and with a reason what is not followed. Real folders come before links to them."""
    seen: set[tuple[int, int]] = set()
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                yield folder, "leads to a folder that is read already"
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield folder, f"cannot be read: {error.strerror}"
            continue
        for entry in entries:
            path, kind = folder / entry.name, _kind(entry)
            if kind == "folder":
                (links if entry.is_symlink() else folders).append(path)
            else:
                yield path, None if kind == "file" else kind
        links.sort()


def _kind(entry: "os.DirEntry[str]") -> str:
    """`folder`, `file`, or why it is neither."""
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        return "links to nothing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "is a pipe, socket or device"


def _why_no_documents(path: Path, json_keys: Sequence[str], read: Reader) -> str | None:
    """Why a file of a folder is left out; None if it is read."""
    form = form_of(path.name)
    if form is None:
        return "is of another format"
    if form != ".json" or path.stat().st_size == 0:
        return None
    try:
        next(read(path, json_keys), None)
    except (Damaged, Refused):
        return None  # told when it is read
    except TrainyardError as error:
        return f"holds no documents: {str(error).removeprefix(f'{printable(path)}, ')}"
    return None


def describe_not_read(not_read: Sequence[NotRead], most: int = 5) -> str:
    """How many, and the first ones by name with the reason."""
    told = [f"{printable(each.name)} {shortened(each.reason, 120)}" for each in not_read[:most]]
    rest = f"; and {len(not_read) - most} more" if len(not_read) > most else ""
    return f"{len(not_read)} not read: {'; '.join(told)}{rest}"


class FoundParts(NamedTuple):
    """What there is to read, in order, and what folders hold beside it."""

    parts: list[Part]
    not_read: list[NotRead]


def parts_of(
    inputs: Sequence[Path], keys: Sequence[str], largest: int = LARGEST_DOCUMENT, option: str = "--json-keys"
) -> FoundParts:
    """Files, and the files below folders, as parts; the columns of all files of rows are known to be there.

    Raises:
        TrainyardError: as `find_sources` and `file_part`.
    """
    raise NotImplementedError
