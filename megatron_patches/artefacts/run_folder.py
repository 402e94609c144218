"""The map of a run's folder: what lies where under `$TRAINYARD_RUNS/<name>/`. Torch-free, and free of configuration."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path

from megatron_patches.artefacts.manifest import MANIFEST
from megatron_patches.foreign.printable import printable

CONFIG = "config.yaml"
"""a resolved configuration: of a run, of a launch, of a checkpoint"""
CHECKPOINTS, EXPORTS, EVALS, IMPORTS, ELSEWHERE = "checkpoints", "exports", "evals", "imports", "elsewhere"
ANNOTATIONS, COPIES = "annotations", "copies"
LAUNCHES, EVENTS, LOGS, TENSORBOARD = "launches", "events", "logs", "tensorboard"
TOKENIZERS = "tokenizers"
SHELVES = (CHECKPOINTS, EXPORTS, EVALS, IMPORTS, ELSEWHERE)
"""folders that hold artefacts, one folder each"""
RECORDS = (ANNOTATIONS, COPIES)
"""folders that hold small files which several people write: what they typed, and where copies lie"""
FOLDERS = (*SHELVES, *RECORDS, LAUNCHES, EVENTS, LOGS, TENSORBOARD, TOKENIZERS)
STOPPED = "stopped"
"""in a launch's folder: it saved itself before its end, to be continued"""
STOP_REQUESTED = "stop-requested"
"""in a launch's folder: asks it to save and stop; `slurm/launch` writes it by this name"""
ROLLBACK = "rollback.json"
"""in the folder of a launch that trains nothing: to which step a person took the run back, and why"""
FAILURE = "failure.json"
"""in a launch's folder: what failed first"""

_REHEARSAL = re.compile(r"(.+)-rehearsal-([1-9][0-9]*)")


def rehearsal_name(run: str, number: int) -> str:
    """Name of a run's rehearsal, and of its folder."""
    return f"{run}-rehearsal-{number}"


def rehearsal_of(name: str) -> str | None:
    """The run that was rehearsed under this name; None for a run itself, which may not be called so."""
    found = _REHEARSAL.fullmatch(name)
    return found[1] if found else None


@dataclass(frozen=True)
class RunFolder:
    """One run's folder; what is in it exists once something was written there."""

    path: Path

    @property
    def name(self) -> str:
        """The run's."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The resolved configuration of the latest launch."""
        return self.path / CONFIG

    @property
    def manifest(self) -> Path:
        """Facts of the run that survive resumes: when it was first launched, its id in Weights & Biases."""
        return self.path / MANIFEST

    @property
    def launches(self) -> Path:
        """One folder for each launch, numbered from 0001."""
        return self.path / LAUNCHES

    @property
    def events(self) -> Path:
        """The record of what happened, one file for each writer and launch."""
        return self.path / EVENTS

    @property
    def checkpoints(self) -> Path:
        """One folder for each saved step."""
        return self.path / CHECKPOINTS

    @property
    def exports(self) -> Path:
        """Checkpoints in other programs' formats."""
        return self.path / EXPORTS

    @property
    def imports(self) -> Path:
        """Weights of other programs' models that its launches begin from."""
        return self.path / IMPORTS

    @property
    def elsewhere(self) -> Path:
        """Manifests of artefacts whose files lie in other places."""
        return self.path / ELSEWHERE

    @property
    def annotations(self) -> Path:
        """What people said about the run."""
        return self.path / ANNOTATIONS

    @property
    def copies(self) -> Path:
        """Where copies of its artefacts lie."""
        return self.path / COPIES

    @property
    def tokenizers(self) -> Path:
        """Files of the run's tokenizer, to which those in its checkpoints are hard links."""
        return self.path / TOKENIZERS

    @property
    def save_requested(self) -> Path:
        """A file, its text the reason, by which people ask a running run for a checkpoint."""
        return self.path / "save-requested"

    @property
    def tensorboard(self) -> Path:
        """Event files of TensorBoard."""
        return self.path / TENSORBOARD

    @property
    def logs(self) -> Path:
        """What the run said while training."""
        return self.path / LOGS


def folder_problems(run: RunFolder) -> Iterator[str]:
    """What lies where a launch needs a folder or a file of its run and is something else; each with its remedy."""
    for folder in (run.path.parent, run.path, *(run.path / name for name in FOLDERS)):
        if problem := _wrong_kind(folder, "folder"):
            yield problem
            if folder in (run.path.parent, run.path):
                return
    for file in (run.config, run.manifest):
        if problem := _wrong_kind(file, "file"):
            yield problem


def _wrong_kind(path: Path, wanted: str) -> str:
    """Empty where what is wanted lies there, or nothing."""
    shown = printable(path)
    try:
        if not lexists(path) or (path.is_dir() if wanted == "folder" else path.is_file()):
            return ""
        if path.is_symlink() and not path.exists():
            leads = printable(path.readlink())
            return f"{shown} is a link to {leads}, where nothing lies: restore that {wanted}, or remove the link"
    except OSError as error:
        return f"{shown} cannot be looked at: {error}"
    found = "a file" if path.is_file() else "a folder" if path.is_dir() else "a pipe, socket or device"
    return f"{shown} is {found}, where a {wanted} is expected; move it away"
