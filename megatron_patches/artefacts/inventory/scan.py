"""Which folders hold manifests: what lies under the runs' and the data's root, one folder at a time.

A folder's time of change says whether an entry of it was added, renamed or removed. So the catalogue looks at the
times of some folders per run, never at each of a hundred thousand checkpoints.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from megatron_patches.artefacts.folders import is_replaced
from megatron_patches.artefacts.manifest import MANIFEST
from megatron_patches.artefacts.run_folder import RECORDS, SHELVES
from megatron_patches.artefacts.unfinished import unfinished_kind

FolderKind = Literal["runs", "run", "shelf", "data", "record"]
_DATA_DEPTH = 4


@dataclass(frozen=True)
class Folder:
    """A folder to watch."""

    path: str
    kind: FolderKind
    run: str | None = None
    depth: int = 0
    """of a data folder: levels beneath the root"""


@dataclass
class Listing:
    """What a folder holds that concerns the catalogue."""

    folders: list[Folder] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)


def roots(runs: Path, data: Path) -> list[Folder]:
    """Where to begin."""
    return [Folder(str(runs), "runs"), Folder(str(data), "data")]


def list_folder(folder: Folder) -> Listing:
    """The folders and manifests directly in a folder.

    Raises:
        OSError: it is gone, or may not be read.
    """
    with os.scandir(folder.path) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries)
    visible = [(name, is_folder) for name, is_folder in names if not name.startswith(".")]
    listing = Listing()
    for name, is_folder in visible:
        _sort_in(listing, folder, name, is_folder)
    return listing


def _sort_in(listing: Listing, folder: Folder, name: str, is_folder: bool) -> None:
    path = f"{folder.path}/{name}"
    is_finished = unfinished_kind(name) is None
    if folder.kind == "runs" and is_folder:
        listing.folders.append(Folder(path, "run", name))
    elif folder.kind == "run":
        if is_folder and name in SHELVES:
            listing.folders.append(Folder(path, "shelf", folder.run))
        elif is_folder and name in RECORDS:
            listing.folders.append(Folder(path, "record", folder.run))
        elif name == MANIFEST:
            listing.manifests.append(path)
    elif folder.kind == "shelf" and is_folder and is_finished and not is_replaced(name):
        listing.manifests.append(f"{path}/{MANIFEST}")
    elif folder.kind == "data":
        if is_folder and folder.depth < _DATA_DEPTH and is_finished:
            listing.folders.append(Folder(path, "data", None, folder.depth + 1))
        elif not is_folder and (name == MANIFEST or name.endswith(f".{MANIFEST}")):
            listing.manifests.append(path)


def beneath(path: str) -> tuple[str, str]:
    """The range of names that lie under a folder, for a comparison of text."""
    return f"{path}/", f"{path}0"  # "0" follows "/"
