"""The folders of a run's checkpoints. Torch-free.

`checkpoints/step-0000001000/` holds safetensors files of every rank, `config.yaml`, `trainer.json` and, written last,
`manifest.json`; `weights-0000001000/` the same without optimizer and trainer. A folder is written under another name
and renamed when it is whole, and renamed again before it is deleted, so a name like this is a promise. Which one is
the newest is read off the names: there is no file that says it and could lie.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from megatron_patches.artefacts.manifest import Manifest, read_manifest, refuse_invalid, verify_files
from megatron_patches.atomic_files import fsync_folder
from megatron_patches.errors import TrainyardError

MANIFEST = "manifest.json"
TRAINER_STATE = "trainer.json"
_NAMES = {"full": re.compile(r"step-(\d{10})"), "weights": re.compile(r"weights-(\d{10})")}

Content = Literal["full", "weights"]


def checkpoint_name(step: int, content: Content = "full") -> str:
    """Name of a step's folder."""
    return f"{'step' if content == 'full' else 'weights'}-{step:010d}"


def step_of(folder: Path) -> int:
    """The step in a checkpoint's name."""
    return int(folder.name.rpartition("-")[2])


def list_checkpoints(checkpoints: Path, content: Content = "full") -> list[Path]:
    """Folders named as checkpoints, newest step first; `inspect` and the hashes say whether they are whole."""
    if not checkpoints.is_dir():
        return []
    found = [path for path in checkpoints.iterdir() if _NAMES[content].fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: path.name, reverse=True)


@dataclass(frozen=True)
class Inspection:
    """What can be said of a checkpoint without reading its tensors."""

    folder: Path
    manifest: Manifest | None
    problems: list[str]


def inspect(folder: Path, allow_inherited_fault: bool = False) -> Inspection:
    """Read the manifest and compare names and sizes of files with it.

    Args:
        allow_inherited_fault: take a checkpoint that is marked invalid because of its data or tokenizer
            (`data.allow_invalid`); one that is marked for another reason is never taken.
    """
    try:
        manifest = read_manifest(folder / MANIFEST)
        if not (allow_inherited_fault and _is_of_its_data(manifest)):
            refuse_invalid(manifest, folder / MANIFEST, "take the mark back: tools/inventory revalidate")
    except TrainyardError as error:
        return Inspection(folder, None, [str(error)])
    return Inspection(folder, manifest, verify_files(manifest, folder, hashes=False))


def _is_of_its_data(manifest: Manifest) -> bool:
    """Whether the fault that a checkpoint is marked with is that of its dataset or tokenizer."""
    identity = manifest.facts.get("identity")
    data = [identity.get("dataset"), identity.get("tokenizer")] if isinstance(identity, dict) else []
    return manifest.status.cause is not None and manifest.status.cause in data


def delete_checkpoint(folder: Path) -> None:
    """Delete a checkpoint: its name goes first, so that a kill leaves nothing that looks like one."""
    going = folder.with_name(f"{folder.name}.deleted.partial")
    shutil.rmtree(going, ignore_errors=True)  # of a deletion that was killed
    folder.rename(going)
    fsync_folder(folder.parent)
    shutil.rmtree(going)


def remove_partial(checkpoints: Path) -> list[Path]:
    """Delete what killed saves and deletions left; a launch that still writes one has lost the run to this one."""
    leftovers = sorted(checkpoints.glob("*.partial")) if checkpoints.is_dir() else []
    for folder in leftovers:
        shutil.rmtree(folder)
    return leftovers
