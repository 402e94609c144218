"""How anything in a run's folder is deleted: what is named and nothing else, never through a link. Torch-free.

Other people may write to a shared folder of runs, so a name there may be a link by the time it is used. The folder
that holds an entry is opened without following a link, and the entry is removed relative to it.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def opened_shelf(shelf: Path) -> Iterator[int]:
    """A descriptor of a run's folder of artefacts, such as `checkpoints/`.

    Raises:
        Refused: it is a link, or no folder.
        OSError: it is gone, or may not be opened.
    """
    refuse_link(shelf)
    run = os.open(shelf.parent, _FOLDER)
    try:
        descriptor = os.open(shelf.name, _FOLDER | os.O_NOFOLLOW, dir_fd=run)
    finally:
        os.close(run)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def refuse_link(shelf: Path) -> None:
    """Raises Refused where a run's folder of artefacts is a link or no folder: nothing is deleted in it then."""
    if shelf.is_symlink():
        raise Refused(
            f"{printable(shelf)} is a link to {link_target(shelf)}, and nothing is deleted through a link: move that "
            "folder to the link's place, or the whole run to another folder of runs (export TRAINYARD_RUNS=FOLDER)"
        )
    if shelf.exists() and not shelf.is_dir():
        raise Refused(f"{printable(shelf)} is a file, where a folder is expected; move it away")


def link_target(path: Path) -> str:
    """Where a link leads, as it is written in it; safe to print."""
    return printable(path.readlink())


def remove_entry(shelf: int, name: str) -> None:
    """Remove what a name stands for in an open folder: a folder with all that is in it, a file, a pipe, a link itself.

    One that is gone, or goes meanwhile, is no error.

    Raises:
        OSError: it, or what is in it, cannot be removed.
    """

    def report(_: Callable[..., Any], __: str, error: Any) -> None:
        if not isinstance(error[1], FileNotFoundError):  # another process removes the same folder
            raise error[1]

    mode = entry_mode(shelf, name)
    if mode is None:
        return
    if not stat.S_ISDIR(mode):
        os.unlink(name, dir_fd=shelf)
        return
    try:
        shutil.rmtree(name, onerror=report, dir_fd=shelf)
    except RecursionError:  # rmtree calls itself for each level
        raise OSError(f"{printable(name)} holds folders nested too deeply to be removed; remove it by hand") from None


def entry_mode(shelf: int, name: str) -> int | None:
    """Type and permissions of an entry, of a link its own; None where there is none."""
    try:
        return os.lstat(name, dir_fd=shelf).st_mode
    except FileNotFoundError:
        return None
