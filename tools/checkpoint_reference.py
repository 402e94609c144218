"""How people name a checkpoint: `RUN`, `RUN@STEP`, or the path of its folder."""

import difflib
import os
from pathlib import Path

from data_tools.errors import TrainyardError
from megatron_patches.checkpoint.choice import checkpoints_with_weights
from megatron_patches.checkpoint.folders import MANIFEST, list_checkpoints
from megatron_patches.run_directory import RunDirectory, runs_root


def find_run_directory(run: str) -> RunDirectory:
    """The directory of a run that was launched, by the run's name or the directory's path.

    Raises:
        TrainyardError: there is none; the nearest name is offered.
    """
    directory = Path(run) if os.sep in run else runs_root() / run
    if not directory.is_dir():
        made = sorted(path.name for path in runs_root().glob("*/")) if runs_root().is_dir() else []
        near = difflib.get_close_matches(directory.name, made, n=1, cutoff=0.3)
        remedy = f"nearest: {near[0]}" if near else "name a run that was launched, or its run directory"
        raise TrainyardError(f"there is no run directory {directory}; {remedy}")
    return RunDirectory(directory)


def find_checkpoint(text: str) -> Path:
    """The folder of a checkpoint; of a run without a step the newest, full ones before those of weights alone.

    Raises:
        TrainyardError: there is none, the step is no number, or the folder is no checkpoint's.
    """
    run, at, step = text.rpartition("@")
    if at and not step.isdecimal():
        raise TrainyardError(f"{text}: behind @ stands a step, a number such as {run}@1000")
    folder = Path(text)
    if not at and os.sep in text and folder.is_dir() and not (folder / "checkpoints").is_dir():
        if not (folder / MANIFEST).is_file():
            raise TrainyardError(
                f"{folder} is no checkpoint: it has no {MANIFEST}. Name a folder such as runs/NAME/checkpoints/"
                "step-0000001000, or a run as NAME or NAME@STEP"
            )
        return folder
    directory = find_run_directory(run if at else text)
    found = checkpoints_with_weights(directory, int(step) if at else None)
    full = set(list_checkpoints(directory.checkpoints))
    return next((each for each in found if each in full), found[0])
