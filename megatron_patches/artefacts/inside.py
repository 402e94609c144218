"""What is sent, written or deleted lies inside the run: a link may have been put there by somebody else."""

import os
from pathlib import Path

from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, every link in it followed, lies in a folder; a link in a circle lies nowhere."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False


def refuse_outside(path: Path, folder: Path) -> None:
    """Raises Refused where a path, every link in it followed, does not lie in a folder."""
    if not is_inside(path, folder):
        raise Refused(
            f"{printable(path)} leads out of {printable(folder)} through a link; remove the link, or pull with --into "
            "another folder"
        )


def refuse_link_of_others(folder: Path) -> None:
    """Raises Refused where a folder is a link that neither this user nor root made: it may lead anywhere."""
    if folder.is_symlink() and folder.lstat().st_uid not in (os.geteuid(), 0):
        raise Refused(
            f"{printable(folder)} is a link of another user, and may lead anywhere; remove it, or name the folder that "
            "it leads to"
        )


def refuse_links_beneath(folder: Path) -> None:
    """Raises Refused where a folder is a link, or holds one: what is written there would go elsewhere.

    Raises:
        OSError: the folder cannot be read.
    """
    entries = [os.path.join(at, name) for at, folders, files in os.walk(folder) for name in folders + files]  # noqa: PTH118
    if link := next((path for path in [folder, *map(Path, entries)] if path.is_symlink()), None):
        raise Refused(
            f"{printable(link)} is a link, where an interrupted pull keeps files of its own; remove it, then pull again"
        )
