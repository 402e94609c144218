"""The folders of a run's checkpoints. Torch-free.

`checkpoints/step-0000001000/` holds safetensors files of every rank, `config.yaml`, `trainer.json`, the tokenizer's
files in `tokenizer/` and, written last, `manifest.json`; `weights-0000001000/` the same without the optimizer. A folder
is written under another name and renamed when it is whole, and renamed again before it is deleted (unfinished.py), so a
name like this is a promise. Which one is the newest is read off the names: there is no file that says it and could lie.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import Any, Literal

from megatron_patches.artefacts.branch import on_present_branch
from megatron_patches.artefacts.manifest import MANIFEST, Manifest, read_manifest, refuse_invalid, verify_files
from megatron_patches.artefacts.marks import is_damaged
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.foreign.files import is_folder
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import shortened

TRAINER_STATE = "trainer.json"
TOKENIZER = "tokenizer"
"""folder in a checkpoint's with the files of its tokenizer; earlier versions wrote none"""
DATA_PARENTS = "data_parents"
"""fact of a checkpoint: how many of its parents, the last ones, are datasets and the tokenizer"""

Content = Literal["full", "weights"]
_BEGINNINGS: dict[Content, str] = {"full": "step", "weights": "weights"}
_NAME = re.compile(r"(step|weights)-([0-9]{10})((?:-[0-9a-f]{8})?)")
_REPLACED = re.compile(r".*\.replaced-\d+")


def checkpoint_name(step: int, content: Content = "full") -> str:
    """Name of a step's folder."""
    return f"{_BEGINNINGS[content]}-{step:010d}"


def shelved_name(name: str, manifest_id: str) -> str:
    """Name under `elsewhere/` for the manifest of a folder of this name: several may have had it."""
    return f"{name}-{manifest_id[:8]}"


@dataclass(frozen=True)
class CheckpointName:
    """What the name of a checkpoint's folder says."""

    content: Content
    step: int
    ending: str
    """empty, or what `shelved_name` added"""

    def with_content(self, content: Content) -> str:
        """The name of the same step's folder with other content."""
        return checkpoint_name(self.step, content) + self.ending


def parse_checkpoint_name(name: str) -> CheckpointName | None:
    """The inverse of `checkpoint_name` and `shelved_name`; None for other folders."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return CheckpointName("full" if found[1] == _BEGINNINGS["full"] else "weights", int(found[2]), found[3])


def weights_name(name: str) -> str:
    """Name of the folder of a checkpoint's weights: step-0000001000 becomes weights-0000001000; others stay."""
    found = parse_checkpoint_name(name)
    return found.with_content("weights") if found else name


def step_of(folder: Path) -> int:
    """The step in a checkpoint's name."""
    found = parse_checkpoint_name(folder.name)
    assert found is not None, folder
    return found.step


def list_checkpoints(checkpoints: Path, content: Content = "full") -> list[Path]:
    """Folders named as checkpoints, newest step first; `inspect` and the hashes say whether they are whole.

    What cannot be looked at, such as a link to a file system that does not answer, is none: it hides no other.
    """
    if not checkpoints.is_dir():
        return []
    found = [
        path
        for path in checkpoints.iterdir()
        if (name := parse_checkpoint_name(path.name))
        and (name.content, name.ending) == (content, "")
        and is_folder(path)
    ]
    return sorted(found, key=lambda path: path.name, reverse=True)


def present_checkpoints(checkpoints: Path) -> list[Path]:
    """The full ones on the run's present branch, newest step first: what a launch may resume from.

    Raises:
        Damaged: where a launch began, or the run's manifest, cannot be read.
    """
    return on_present_branch(RunFolder(checkpoints.parent), list_checkpoints(checkpoints))


def replaced_path(folder: Path) -> Path:
    """A free name for a folder whose step is saved again, damaged or left behind: it is kept beside the new one."""
    number = 1
    while lexists(candidate := folder.with_name(f"{folder.name}.replaced-{number}")):
        number += 1
    return candidate


def name_before(replaced: str) -> str:
    """The name that a folder had before `replaced_path`; other names stay."""
    return replaced.rpartition(".")[0] if is_replaced(replaced) else replaced


def is_replaced(name: str) -> bool:
    """Whether a folder's name is one that `replaced_path` gave."""
    return _REPLACED.fullmatch(name) is not None


@dataclass(frozen=True)
class Inspection:
    """What can be said of a checkpoint without reading its tensors."""

    folder: Path
    manifest: Manifest | None
    problems: list[str]
    refused: bool = False
    """its manifest is in order and says that it must not be used, or is of a later version"""
    facts: Mapping[str, Any] | None = None
    """what its manifest states, also where it must not be used; None where that cannot be read"""


def inspect(folder: Path, allow_inherited_fault: bool = False) -> Inspection:
    """Read the manifest and compare names and sizes of files with it.

    Args:
        allow_inherited_fault: take a checkpoint that is marked invalid because of its data or tokenizer
            (`data.allow_invalid`); one that is marked for another reason is never taken.
    """
    facts: Mapping[str, Any] | None = None
    try:
        manifest = read_manifest(folder / MANIFEST)
        facts = manifest.facts
        if not (allow_inherited_fault and _is_of_its_data(manifest)):
            refuse_invalid(manifest, folder / MANIFEST, "take the mark back: tools/inventory revalidate")
        problems = [*_name_problems(folder, manifest), *verify_files(manifest, folder, False)]
        return Inspection(folder, manifest, problems, facts=facts)
    except (TrainyardError, OSError) as error:
        return Inspection(folder, None, [str(error)], isinstance(error, Refused), facts)


def _name_problems(folder: Path, manifest: Manifest) -> list[str]:
    """A folder that bears the name of another step, or holds something else than a checkpoint."""
    name, step = parse_checkpoint_name(folder.name), manifest.facts.get("step")
    if manifest.kind != "checkpoint":
        an = "an" if manifest.kind.startswith("e") else "a"
        return [f"{folder} holds no checkpoint: its manifest is that of {an} {manifest.kind}"]
    if name is not None and (type(step) is not int or step != name.step):
        return [f"{folder} has the name of step {name.step}, its manifest says {shortened(step, 40)}"]
    return []


def is_spoilt(folder: Path) -> bool:
    """Whether a checkpoint's folder is damaged, as far as marks, names and sizes tell; what is invalid is not."""
    inspection = inspect(folder)
    return is_damaged(folder) or (bool(inspection.problems) and not inspection.refused)


def next_start(checkpoints: Path) -> str:
    """Where the next launch of a run begins, as far as names and sizes tell, for messages of a launch that ends."""
    try:
        folders = present_checkpoints(checkpoints)
    except (TrainyardError, OSError) as error:
        return f"{checkpoints} cannot be read ({error}): whether there is a whole checkpoint is not known"
    whole = next((folder for folder in folders if not inspect(folder, True).problems), None)
    if whole is None:
        return "there is no whole checkpoint yet: the same launch starts at step 0"
    return f"the newest whole checkpoint is {whole.name}: the same launch continues from it"


def _is_of_its_data(manifest: Manifest) -> bool:
    """Whether the fault that a checkpoint is marked with is that of its dataset or tokenizer."""
    identity, count = manifest.facts.get("identity"), whole_of(manifest.facts.get(DATA_PARENTS))
    if manifest.status.cause is None or not isinstance(identity, dict):
        return False
    data = [identity.get("dataset"), identity.get("tokenizer"), *(manifest.parents[-count:] if count else [])]
    return manifest.status.cause in data
