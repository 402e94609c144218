"""Which checkpoint a command line means: of a run, by its name or directory, or a folder that is one itself."""

import difflib
import os
from pathlib import Path

import typer

from data_tools.errors import TrainyardError


def checkpoint_of(text: str, step: int | None) -> Path:
    """The folder of the run's newest whole checkpoint, or of a step's; every byte was compared with its manifest.

    What is damaged and therefore passed over is said on stderr.

    Raises:
        TrainyardError: there is no such run or checkpoint, or it is damaged.
    """
    from megatron_patches.checkpoint.choice import checkpoint_to_read
    from megatron_patches.run_directory import RunDirectory, runs_root

    directory = Path(text) if os.sep in text else runs_root() / text
    if not directory.is_dir():
        made = sorted(path.name for path in runs_root().glob("*/")) if runs_root().is_dir() else []
        near = difflib.get_close_matches(directory.name, made, n=1, cutoff=0.3)
        remedy = f"nearest: {near[0]}" if near else "name a run that was launched, its directory, or a checkpoint's"
        raise TrainyardError(f"there is no run directory {directory}; {remedy}")
    if (directory / "manifest.json").is_file() and not (directory / "launches").is_dir():
        return _whole(directory, step)
    folder, damage = checkpoint_to_read(RunDirectory(directory), step)
    for problem in damage:
        typer.echo(f"passed over: {problem}", err=True)
    if damage:
        typer.echo(f"reading {folder.name}", err=True)
    return folder


def _whole(folder: Path, step: int | None) -> Path:
    from data_tools.manifest import verify_files
    from megatron_patches.checkpoint.folders import inspect

    if step is not None:
        raise TrainyardError(f"{folder} is one checkpoint: leave out --step, or name the run's directory")
    inspection = inspect(folder)
    manifest, problems = inspection.manifest, inspection.problems
    if manifest is not None and manifest.kind != "checkpoint":
        raise TrainyardError(f"{folder} holds a {manifest.kind}, no checkpoint; name a run or a checkpoint's folder")
    if manifest is not None and not problems:
        problems = verify_files(manifest, folder, hashes=True)
    if problems:
        raise TrainyardError(f"{'; '.join(problems)}. Restore it from a copy, or name another")
    return folder


def refuse_existing(output: Path) -> None:
    """Raise TrainyardError if a folder to be made exists: said before anything is read and hashed."""
    if output.exists():
        raise TrainyardError(f"{output} exists; name another folder, or move it away")
