"""Which folders hold manifests: what lies under the runs' and the data's root, one folder at a time.

A folder's time of change says whether an entry of it was added, renamed or removed. So the catalogue looks at the
times of some folders per run, never at each of a hundred thousand checkpoints.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from megatron_patches.artefacts.manifest import MANIFEST
from megatron_patches.artefacts.run_folder import RECORDS, SHELVES
from megatron_patches.artefacts.unfinished import unfinished_kind
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.names import is_name, is_unicode
from megatron_patches.foreign.printable import printable

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
    problems: list[tuple[str, str]] = field(default_factory=list)
    """what is left out: a path that can be printed, and a sentence"""


def roots(runs: Path, data: Path) -> list[Folder]:
    """Where to begin.

    Raises:
        TrainyardError: the name of one of them is not UTF-8, which the catalogue cannot hold.
    """
    for folder in (runs, data):
        if not is_unicode(str(folder)):
            raise TrainyardError(
                f"{printable(folder)}: the folder's name is not UTF-8; rename it, or make a link to it of another name"
            )
    return [Folder(str(runs), "runs"), Folder(str(data), "data")]


def list_folder(folder: Folder) -> Listing:
    """The folders and manifests directly in a folder.

    Raises:
        OSError: it is gone, or may not be read.
    """
    with os.scandir(folder.path) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    listing = Listing()
    for entry in visible:
        try:
            is_folder = entry.is_dir()
        except OSError as error:  # a link to a file system that does not answer, or may not be read
            path = printable(f"{folder.path}/{entry.name}")
            listing.problems.append((path, f"{path} cannot be looked at ({error.strerror})"))
        else:
            _sort_in(listing, folder, entry.name, is_folder)
    return listing


def _sort_in(listing: Listing, folder: Folder, name: str, is_folder: bool) -> None:
    path = f"{folder.path}/{name}"
    if reason := _why_left_out(folder, name, is_folder):
        listing.problems.append((printable(path), f"{printable(path)} {reason}"))
        return
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
    elif folder.kind == "shelf" and is_folder and is_finished:
        listing.manifests.append(f"{path}/{MANIFEST}")
    elif folder.kind == "data":
        if is_folder and folder.depth < _DATA_DEPTH and is_finished:
            listing.folders.append(Folder(path, "data", None, folder.depth + 1))
        elif not is_folder and (name == MANIFEST or name.endswith(f".{MANIFEST}")):
            listing.manifests.append(path)


def _why_left_out(folder: Folder, name: str, is_folder: bool) -> str:
    """Names of runs and artefacts are put into addresses, paths and command lines; data may be named as it likes."""
    if is_folder and folder.kind in ("runs", "shelf") and not is_name(name):
        return f"is left out: its name cannot be that of {'a run' if folder.kind == 'runs' else 'an artefact'}"
    if folder.kind == "data" and not is_unicode(name):
        return "is left out: its name is not UTF-8"
    if folder.kind == "run" and not is_folder and name in (*SHELVES, *RECORDS):
        return "is no folder, where one is expected; move it away"
    return ""


def beneath(path: str) -> tuple[str, str]:
    """The range of names that lie under a folder, for a comparison of text."""
    return f"{path}/", f"{path}0"  # "0" follows "/"
