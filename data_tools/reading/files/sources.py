"""Files of documents below what a user names: links are followed, and what is not read is known by name."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_tools.reading.block import BadEntry, Block
from data_tools.reading.documents import FORMS, LARGEST_DOCUMENT, TEXT, form_of
from data_tools.reading.entries import documents_of
from data_tools.reading.files.file_part import FilePart
from data_tools.reading.files.parts import file_part
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.foreign.printable import printable, shortened, storable

NOT_READ_NAMED = 100
"""names of left-out files in a manifest; their number is there too"""

BadRecords = Callable[[Block], Sequence[BadEntry]]
"""which entries of a block are no records"""


class NotRead(NamedTuple):
    """Something in a folder that is left out."""

    name: str
    reason: str


class FoundParts(NamedTuple):
    """What there is to read, in order, and what folders hold beside it."""

    parts: list[FilePart]
    not_read: list[NotRead]


def parts_of(
    inputs: Sequence[Path],
    keys: Sequence[str] = ("text",),
    largest: int = LARGEST_DOCUMENT,
    option: str = "--json-keys",
    bad_records: BadRecords | None = None,
) -> FoundParts:
    """The files to read, in order: files as given, a folder's files below it sorted by path.

    In a folder, files of unknown endings and .json files that hold no documents, such as a dataset's description, are
    left out. Links to folders are followed; a folder that several lead to is read once. The columns of all files of
    rows are known to be there.

    Args:
        keys, largest, option: as `file_part` has them.
        bad_records: of entries that are more than texts; None: they are texts.

    Raises:
        TrainyardError: an input is missing, empty or of an unknown format, or a folder has no file of a known one; or
            as `file_part`.
    """
    finding = _Finding(keys, largest, option, bad_records)
    for given in inputs:
        if given.is_dir():
            finding.add_folder(given)
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
            finding.add(given, storable(given.name))
    return finding.found


class _Finding:
    """What is asked of the files, and those found so far."""

    def __init__(self, keys: Sequence[str], largest: int, option: str, bad_records: BadRecords | None) -> None:
        self.found = FoundParts([], [])
        self._keys, self._largest, self._option = keys, largest, option
        self._is_records = bad_records is not None
        self._bad_of = bad_records or (lambda block: documents_of(block, keys, largest, option).bad)

    def part(self, path: Path, name: str) -> FilePart:
        if path.stat().st_size == 0 and form_of(path.name) != TEXT:
            raise Damaged(f"source {printable(path)} is empty (0 bytes); copy it again, or leave it out")
        return file_part(path, name, self._keys, self._largest, self._option, self._is_records)

    def add(self, path: Path, name: str) -> None:
        self.found.parts.append(self.part(path, name))

    def add_folder(self, given: Path) -> None:
        root = storable(given.resolve().name)
        before = len(self.found.parts)
        files: list[Path] = []
        for path, reason in _walk(given):
            if reason is None:
                files.append(path)
            else:
                name = f"{root}/{storable(path.relative_to(given).as_posix())}"
                self.found.not_read.append(NotRead(name, reason))
        for path in sorted(files):
            name = f"{root}/{storable(path.relative_to(given).as_posix())}"
            reason = self.why_no_documents(path, name)
            if reason is None:
                self.add(path, name)
            else:
                self.found.not_read.append(NotRead(name, reason))
        if len(self.found.parts) == before:
            there = f" ({describe_not_read(self.found.not_read)})" if self.found.not_read else ""
            raise TrainyardError(
                f"folder {printable(given)} has no file with documents{there}; give another one, with files "
                f"ending in {FORMS}"
            )

    def why_no_documents(self, path: Path, name: str) -> str | None:
        """Why a file of a folder is left out; None if it is read."""
        form = form_of(path.name)
        if form is None:
            return "is of another format"
        if form != ".json" or path.stat().st_size == 0:
            return None
        try:
            reason = self._first_problem(self.part(path, name))
        except (Damaged, Refused):
            return None  # told when it is read
        except TrainyardError as error:
            reason = str(error)
        return reason and f"holds no documents: {reason.removeprefix(f'{printable(path)}, ')}"

    def _first_problem(self, part: FilePart) -> str | None:
        """What is wrong with the first entry."""
        for block in part.blocks():
            for place, line in enumerate(block.content.split(b"\n")):
                if len(line) > self._largest:
                    return None  # told when it is read
                if line and not line.isspace():
                    first = block._replace(content=line, first=block.first + place, entries=1)
                    return next((bad.reason for bad in self._bad_of(first)), None)
        return None


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


def describe_not_read(not_read: Sequence[NotRead], most: int = 5) -> str:
    """How many, and the first ones by name with the reason."""
    told = [f"{printable(each.name)} {shortened(each.reason, 120)}" for each in not_read[:most]]
    rest = f"; and {len(not_read) - most} more" if len(not_read) > most else ""
    return f"{len(not_read)} not read: {'; '.join(told)}{rest}"
