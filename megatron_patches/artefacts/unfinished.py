"""Names of what is not finished: each kind has a suffix of its own, and only this module knows which. Torch-free.

A save, a deletion or a pull works in a folder under such a name and renames it when it is done, so a folder's own name
is a promise. Whoever meets a leftover knows by its name who may remove it: a launch its run's saves and deletions,
nobody but `gc` a pull, since the next pull goes on with it.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from megatron_patches.atomic_files import TEMPORARY, fsync_folder

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


def delete_folder(folder: Path) -> None:
    """Delete a folder: its name goes first, so that no instant shows half of it. One that is gone is no error.

    Raises:
        OSError: it, or what is in it, cannot be removed; what is left has the name of a deletion.
    """
    going = folder
    if unfinished_kind(folder.name) != "deletion":
        going = folder.with_name(f"{folder.name}{DELETING}")
        _remove(going)  # of a deletion that was killed
        try:
            folder.rename(going)
        except FileNotFoundError:
            return  # another process removed it
        fsync_folder(folder.parent)
    _remove(going)


def remove_leftovers(checkpoints: Path) -> list[Path]:
    """Delete what killed saves and deletions of a run left; a launch that still writes one has lost the run to this.

    Interrupted pulls and what other programs write beside the checkpoints stay.

    Raises:
        OSError: one of them cannot be removed.
    """
    entries = sorted(checkpoints.iterdir()) if checkpoints.is_dir() else []
    leftovers = [each for each in entries if each.is_dir() and unfinished_kind(each.name) in ("save", "deletion")]
    for folder in leftovers:
        _remove(folder)
    return leftovers


def _remove(folder: Path) -> None:
    def report(_: Callable[..., Any], __: str, error: Any) -> None:
        if not isinstance(error[1], FileNotFoundError):  # another process removes the same folder
            raise error[1]

    shutil.rmtree(folder, onerror=report)
