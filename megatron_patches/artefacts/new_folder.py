"""Whether a folder can be made at a place: said before anything is read, hashed or computed for it."""

import os
from pathlib import Path

from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable


def refuse_place(folder: Path) -> None:
    """Nothing may have the folder's name, and what it is to be made in must be a folder that takes new names.

    Raises:
        Refused: it cannot be made there. OSError: as looking at it does, such as a name that is too long.
    """
    shown = printable(folder)
    if folder.is_symlink() and not folder.exists():
        raise Refused(f"{shown} is a link to what does not exist; name another folder, or remove the link")
    if folder.exists():
        raise Refused(f"{shown} exists; name another folder, or move it away")
    nearest = next(parent for parent in folder.absolute().parents if os.path.lexists(parent))
    if not nearest.is_dir():
        raise Refused(f"{shown} cannot be made: {printable(nearest)} is no folder; name another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise Refused(f"{shown} cannot be made: {printable(nearest)} may not be written to; name another place")
