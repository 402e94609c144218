"""Names of what is not finished: each kind has a suffix of its own, and only this module knows which. Torch-free.

A save, a deletion or a pull works in a folder under such a name and renames it when it is done, so a folder's own name
is a promise. Whoever meets a leftover knows by its name who may remove it: a launch its run's saves and deletions,
nobody but `gc` a pull, since the next pull goes on with it.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from megatron_patches.artefacts.deletion import entry_mode, link_target, opened_shelf, remove_entry
from megatron_patches.atomic_files import TEMPORARY
from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable

SAVING = ".saving"
DELETING = ".deleting"
PULLING = ".pulling"
Unfinished = Literal["save", "deletion", "pull", "temporary"]

# Earlier versions called all of it `.partial`: NAME.LAUNCH.partial, NAME.deleted, NAME.deleted.partial and
# NAME.pull.partial. A launch has four digits or a few more, the token in a temporary name has eight.
_ENDINGS: dict[Unfinished, re.Pattern[str]] = {
    "save": re.compile(rf".*({re.escape(SAVING)}|\.\d{{4,7}}\.partial)"),
    "deletion": re.compile(rf".*({re.escape(DELETING)}|\.deleted|\.deleted\.partial)"),
    "pull": re.compile(rf".*({re.escape(PULLING)}|\.pull\.partial)"),
    "temporary": re.compile(rf".*{re.escape(TEMPORARY)}"),
}


def saving_path(folder: Path, launch: str) -> Path:
    """Where a launch writes a folder before it has its name."""
    return folder.with_name(f"{folder.name}.{launch}{SAVING}")


def pulling_path(folder: Path) -> Path:
    """Where a pull gathers a folder before it has its name; the same for every pull, so that the next one goes on."""
    return folder.with_name(f"{folder.name}{PULLING}")


def former_pulling_path(folder: Path) -> Path:
    """What an earlier version called that folder; a pull goes on with it too."""
    return folder.with_name(f"{folder.name}.pull{TEMPORARY}")


def unfinished_kind(name: str) -> Unfinished | None:
    """What was being done to the folder or file of this name; None where it is finished."""
    return next((kind for kind, ending in _ENDINGS.items() if ending.fullmatch(name)), None)


def delete_folder(folder: Path) -> str:
    """Delete a folder of a run's shelf: its name goes first, so that no instant shows half of it.

    A link that has the folder's name goes, and its target stays; a file goes. One that is gone is no error.

    Returns:
        What else a person should know, such as where the files of a link still lie; mostly empty.

    Raises:
        Refused: the shelf is a link, or no folder.
        OSError: it, or what is in it, cannot be removed. What is left has the name of a deletion, unless the folder
            itself may not be written to: that keeps its name.
    """
    going = folder.name
    with opened_shelf(folder.parent) as shelf:
        mode = entry_mode(shelf, folder.name)
        if mode is None:
            return ""
        if not stat.S_ISDIR(mode):
            told = f"{folder.name} was a link; its target {link_target(folder)} stays" if stat.S_ISLNK(mode) else ""
            remove_entry(shelf, folder.name)
            return told
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{printable(folder)} is read-only; to let it go: chmod -R u+w {printable(folder)}")
        if unfinished_kind(folder.name) != "deletion":
            going = f"{folder.name}{DELETING}"
            remove_entry(shelf, going)  # of a deletion that was killed
            try:
                os.rename(folder.name, going, src_dir_fd=shelf, dst_dir_fd=shelf)
            except FileNotFoundError:
                return ""  # another process removed it
            os.fsync(shelf)
        remove_entry(shelf, going)
    return ""


@dataclass(frozen=True)
class Leftovers:
    """What became of what killed saves and deletions left."""

    removed: tuple[Path, ...] = ()
    complaints: tuple[str, ...] = ()
    """why others are still there"""


def remove_leftovers(checkpoints: Path) -> Leftovers:
    """Delete what killed saves and deletions of a run left; a launch that still writes one has lost the run to this.

    Interrupted pulls and what other programs write beside the checkpoints stay. What cannot be removed is no reason to
    end a launch: it is told.
    """
    removed: list[Path] = []
    complaints: list[str] = []
    try:
        names = sorted(path.name for path in checkpoints.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return Leftovers()
    except OSError as error:
        return Leftovers(complaints=(f"{checkpoints} cannot be looked through for leftovers: {error}",))
    leftovers = [name for name in names if unfinished_kind(name) in ("save", "deletion")]
    for name in leftovers:
        try:
            with opened_shelf(checkpoints) as shelf:
                remove_entry(shelf, name)
            removed.append(checkpoints / name)
        except (Refused, OSError) as error:
            complaints.append(f"{printable(name)}, left by a killed save or deletion, cannot be removed: {error}")
    return Leftovers(tuple(removed), tuple(complaints))
