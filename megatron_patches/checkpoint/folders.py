"""The folders of a run's checkpoints. Torch-free.

`checkpoints/step-0000001000/` holds safetensors files of every rank, `config.yaml`, `trainer.json` and, written last,
`manifest.json`. A folder is written under another name and renamed when it is whole, so a name like this is a promise.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from data_tools.errors import TrainyardError
from data_tools.manifest import Manifest, read_manifest, refuse_invalid, verify_files

MANIFEST = "manifest.json"
TRAINER_STATE = "trainer.json"
_NAME = re.compile(r"step-(\d{10})")


def checkpoint_name(step: int) -> str:
    """Name of a step's folder."""
    return f"step-{step:010d}"


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Folders named as checkpoints, newest step first; `inspect` and the hashes say whether they are whole."""
    if not checkpoints.is_dir():
        return []
    found = [path for path in checkpoints.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: path.name, reverse=True)


@dataclass(frozen=True)
class Inspection:
    """What can be said of a checkpoint without reading its tensors."""

    folder: Path
    manifest: Manifest | None
    problems: list[str]


def inspect(folder: Path) -> Inspection:
    """Read the manifest and compare names and sizes of files with it."""
    try:
        manifest = read_manifest(folder / MANIFEST)
        refuse_invalid(manifest, folder / MANIFEST)
    except TrainyardError as error:
        return Inspection(folder, None, [str(error)])
    return Inspection(folder, manifest, verify_files(manifest, folder, hashes=False))


def remove_partial(checkpoints: Path) -> list[Path]:
    """Delete what saves that were killed left behind; a launch that still writes one has lost the run to this one."""
    leftovers = sorted(checkpoints.glob("*.partial")) if checkpoints.is_dir() else []
    for folder in leftovers:
        shutil.rmtree(folder)
    return leftovers
