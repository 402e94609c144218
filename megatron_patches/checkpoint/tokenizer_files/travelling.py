"""The tokenizer's files in the folder of a checkpoint: read and checked once, then linked or written into each.

A run keeps one copy of them, `tokenizers/<hash>/`, to which the files in its checkpoints are hard links: a hundred
checkpoints take the space of one vocabulary, and a save does not write it. Torch-free.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from data_tools.text.hugging_face_tokenizer import LARGEST_FILE
from data_tools.text.tokenizers import find_tokenizer, tokenizer_id, travelling_files
from megatron_patches.artefacts.deletion import opened_shelf, refuse_link, remove_entry
from megatron_patches.artefacts.folders import TOKENIZER
from megatron_patches.artefacts.manifest import FileRecord, Manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import HashingWriter, fsync_folder, temporary_path
from megatron_patches.errors import Damaged, Refused, TrainyardError
from megatron_patches.foreign.files import is_file, read_bounded
from megatron_patches.foreign.printable import printable


@dataclass(frozen=True)
class KeptFile:
    """A file on the disk with a certain content, as long as its status stays what it was."""

    path: Path
    status: tuple[int, int, int, int]
    """device, number, bytes, time of the last change in ns"""

    def link_to(self, target: Path) -> bool:
        """Make `target` another name of the file; False where it cannot be, or the file was changed."""
        try:
            os.link(self.path, target, follow_symlinks=False)
        except OSError:  # another file system, no links there, too many of them, or the copy was deleted
            return False
        if _status(target) == self.status:
            return True
        target.unlink()
        return False


@dataclass(frozen=True)
class TravellingFile:
    """One of the files."""

    record: FileRecord
    """its path is that in a checkpoint's folder: tokenizer/tokenizer.json"""
    content: bytes
    kept: KeptFile | None = None
    """the run's copy, if there is one"""


@dataclass(frozen=True)
class TravellingTokenizer:
    """The files of a tokenizer with a known id, held in memory: a few MB, so that a save depends on nothing else."""

    files: tuple[TravellingFile, ...] = ()

    def put_into(self, folder: Path) -> list[FileRecord]:
        """Link or write the files into a checkpoint's folder, so that they are on the disk; their records.

        Raises:
            OSError: they cannot be written.
        """
        folders: dict[Path, None] = {}
        for file in self.files:
            target = folder / file.record.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.kept is None or not file.kept.link_to(target):
                _write(target, file.content)
            folders[target.parent] = None
        for each in folders:
            fsync_folder(each)
        return [file.record for file in self.files]


def read_tokenizer(place: Path, identity: str) -> TravellingTokenizer:
    """Read the files of a run's tokenizer.

    Args:
        place: its folder, or its `.model` file.
        identity: the id that the run's identity names.

    Raises:
        Refused: the tokenizer there is another one.
        TrainyardError: there is none, or it does not fit its manifest. OSError as reading does.
    """
    contents = {
        name: read_bounded(path, LARGEST_FILE) for name, path in travelling_files(find_tokenizer(place)).items()
    }
    found = tokenizer_id(
        find_tokenizer(place), allow_invalid=True
    )  # after reading: of what was read, or of a later one
    if found != identity:
        raise Refused(
            f"tokenizer {printable(place)} was changed since the launch was checked: it is {found[:12]} now, and was "
            f"{identity[:12]}. Restore it, then start the run again"
        )
    return TravellingTokenizer(tuple(_in_memory(name, content) for name, content in contents.items()))


def stored_tokenizer(folder: Path, manifest: Manifest) -> TravellingTokenizer:
    """The files that travelled with a checkpoint; none where an earlier version wrote it.

    Raises:
        Damaged: they are not those that its manifest lists.
    """
    files = []
    for record in manifest.files:
        if record.path.startswith(f"{TOKENIZER}/"):
            content = read_bounded(folder / record.path, LARGEST_FILE)
            if hashlib.sha256(content).hexdigest() != record.sha256:
                raise Damaged(
                    f"{printable(folder / record.path)} does not have the sha256 that its manifest says; restore the "
                    "checkpoint from a copy"
                )
            files.append(TravellingFile(record, content, KeptFile(folder / record.path, _status(folder / record.path))))
    return TravellingTokenizer(tuple(files))


def keep_tokenizer(tokenizer: TravellingTokenizer, run: RunFolder) -> TravellingTokenizer:
    """Write the files into the run's folder, unless they lie there, for checkpoints to link to.

    A file there that was changed is mended in place: it is the same one in each checkpoint, and all of them are whole
    again.

    Raises:
        Refused: the folder for them is a link, or no folder.
        TrainyardError: the run's folder cannot be written to.
    """
    refuse_link(run.tokenizers)
    names = {file.record.path.removeprefix(f"{TOKENIZER}/"): file for file in tokenizer.files}
    together = hashlib.sha256("".join(f"{name}\0{file.record.sha256}\n" for name, file in names.items()).encode())
    folder = run.tokenizers / together.hexdigest()[:16]
    try:
        if not _holds(folder, names):
            _mend(folder, names)
        if not _holds(folder, names):
            _renew(folder, names)
        kept = {name: KeptFile(folder / name, _status(folder / name)) for name in names}
    except OSError as error:
        raise TrainyardError(
            f"{printable(folder)} cannot be written to ({error}): free space there, or make it writable, then start "
            "the run again"
        ) from error
    return TravellingTokenizer(tuple(replace(file, kept=kept[name]) for name, file in names.items()))


def _in_memory(name: str, content: bytes) -> TravellingFile:
    digest = hashlib.sha256(content).hexdigest()
    return TravellingFile(FileRecord(path=f"{TOKENIZER}/{name}", size=len(content), sha256=digest), content)


def _holds(folder: Path, files: Mapping[str, TravellingFile]) -> bool:
    """Whether a folder has the files as they are to be; no link in it is followed."""
    try:
        paths = [folder / name for name in files]
        return not any(path.is_symlink() for path in (folder, *paths)) and all(
            (folder / name).read_bytes() == file.content for name, file in files.items()
        )
    except OSError:
        return False


def _mend(folder: Path, files: Mapping[str, TravellingFile]) -> None:
    """Write what files should hold into those that lie there under other names too; the folder's name is the hash of
    what they held."""
    if folder.is_symlink():
        return
    for name, file in files.items():
        path = folder / name
        if not is_file(path) or path.is_symlink() or path.stat().st_nlink == 1 or path.read_bytes() == file.content:
            continue
        path.chmod(0o644)
        with path.open("r+b") as target:
            target.write(file.content)
            target.truncate()
            os.fsync(target.fileno())
        path.chmod(0o444)


def _renew(folder: Path, files: Mapping[str, TravellingFile]) -> None:
    folder.parent.mkdir(exist_ok=True)
    partial = temporary_path(folder)
    try:
        for name, file in files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            _write(partial / name, file.content)
            # every checkpoint has the same file: an editor that writes into it would damage all of them
            (partial / name).chmod(0o444)
        with opened_shelf(folder.parent) as shelf:
            remove_entry(shelf, folder.name)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    fsync_folder(folder.parent)


def _write(path: Path, content: bytes) -> None:
    with HashingWriter(path) as file:
        file.write(content)


def _status(path: Path) -> tuple[int, int, int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
