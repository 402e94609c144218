"""The folders that people name: `RUN`, `RUN@STEP` (also @gold, @best, @best:TASK.METRIC, @STEP/weights), or the path of
a folder."""

import difflib
import os
from pathlib import Path

from megatron_patches.artefacts.evaluations.best import referred_folder
from megatron_patches.artefacts.folders import inspect, list_checkpoints, parse_checkpoint_name, step_of
from megatron_patches.artefacts.inventory.names import resolve_run
from megatron_patches.artefacts.manifest import MANIFEST, verify_files
from megatron_patches.artefacts.reference import parse_reference
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import runs_root
from megatron_patches.checkpoint.offline.choice import checkpoints_with_weights
from megatron_patches.errors import Damaged, Missing
from megatron_patches.foreign.files import is_folder, names_in
from megatron_patches.foreign.names import is_name
from megatron_patches.foreign.printable import printable, shortened
from tools.terminal import remark


def find_run_directory(run: str) -> RunFolder:
    """The directory of a run that was launched: by its name, a part of it that no other has, or the directory's path.

    Raises:
        Missing: there is none; the nearest name is offered.
        TrainyardError: it may be any of several, which are named.
    """
    if os.sep in run:
        if not is_folder(Path(run)):
            raise Missing(f"there is no run directory {printable(run)}; name a run that was launched, or its directory")
        return RunFolder(Path(run))
    root = runs_root()
    made = [name for name in names_in(root) if is_name(name) and is_folder(root / name)]
    if run not in made and not any(run in name for name in made):
        near = difflib.get_close_matches(run, made, n=1, cutoff=0.3)
        remedy = f"nearest: {near[0]}" if near else "name a run that was launched, or its run directory"
        raise Missing(f"there is no run directory {shortened(root / run)}; {remedy}")
    return RunFolder(root / resolve_run(run, made))


def find_checkpoints(text: str) -> list[Path]:
    """The folders that a reference names, the newest first: all of a run, those of a step, or the one folder.

    Of a step the full checkpoint comes before that of weights alone.

    Raises:
        Missing: there is none, or the folder is no checkpoint's.
        TrainyardError: the reference is not formed as it must be.
    """
    folder = Path(text)
    if os.sep in text and is_folder(folder) and not _is_run(folder):
        if not (folder / MANIFEST).is_file():
            raise Missing(
                f"{printable(folder)} is no checkpoint: it has no {MANIFEST}. Name a folder such as "
                "runs/NAME/checkpoints/step-0000001000, or a run as NAME, NAME@STEP or NAME@STEP/weights"
            )
        return [folder]
    reference = None if os.sep in text and is_folder(folder) else parse_reference(text)
    directory = find_run_directory(reference.run if reference else text)
    if reference and reference.chosen:
        return [referred_folder(directory, reference)]
    found = checkpoints_with_weights(directory, reference.step if reference else None)
    full = set(list_checkpoints(directory.checkpoints))
    if reference and reference.weights_only:
        found = [each for each in found if each not in full]
        if not found:
            raise Missing(
                f"{printable(directory.path)} has no checkpoint of weights alone of step {reference.step}; the full "
                f"one is {directory.name}@{reference.step}"
            )
    steps = {step: rank for rank, step in enumerate(dict.fromkeys(map(step_of, found)))}
    return sorted(found, key=lambda each: (steps[step_of(each)], each not in full))


def _is_run(folder: Path) -> bool:
    return RunFolder(folder).launches.is_dir() or RunFolder(folder).checkpoints.is_dir()


def find_checkpoint(text: str) -> Path:
    """The folder that a reference names; of a run the newest full checkpoint, or the newest of weights alone."""
    found = find_checkpoints(text)
    return next((each for each in found if _is_full(each)), found[0])


def _is_full(folder: Path) -> bool:
    name = parse_checkpoint_name(folder.name)
    return name is not None and name.content == "full"


def find_whole_checkpoint(text: str) -> Path:
    """The same, every byte compared with its manifest; what is damaged and passed over is said on stderr.

    Raises:
        Damaged: none that the reference names is whole.
    """
    problems: list[str] = []
    for folder in find_checkpoints(text):
        inspection = inspect(folder)
        found = inspection.problems
        if inspection.manifest is not None and not found:
            found = verify_files(inspection.manifest, folder, hashes=True)
        if not found:
            if problems:
                remark(f"passed over: {'; '.join(problems)}")
            return folder
        problems += found
    raise Damaged(f"{'; '.join(problems)}. Restore it from a copy, or name another")
