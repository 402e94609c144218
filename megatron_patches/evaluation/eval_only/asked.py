"""Which checkpoints a launch with `--eval-only` validates, and on what. Torch-free.

Such a launch is none of the run's: it has a folder `logs/eval-only-0001/`, so that it neither owns the run nor waits
for whoever does, and what it finds goes to the shelf of evaluations.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.branch import on_present_branch
from megatron_patches.artefacts.folders import inspect, list_checkpoints, step_of
from megatron_patches.artefacts.inventory.weights import weights_of
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.run_folder import CONFIG, RunFolder
from megatron_patches.atomic_files import temporary_path, write_atomically
from megatron_patches.checkpoint.offline.choice import checkpoints_with_weights
from megatron_patches.configuration.section import Section
from megatron_patches.errors import Damaged, Refused, TrainyardError, listed
from megatron_patches.evaluation.tasks.outcome import EvaluatedCheckpoint
from megatron_patches.evaluation.tasks.task import LossTask, TaskSettings
from megatron_patches.foreign.files import names_in, read_bounded
from megatron_patches.foreign.json_text import parse_object, whole_of
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.run.ownership import OWNER
from megatron_patches.run.reading import load_resolved, to_yaml

NEWEST, ALL = "", "all"
TASK = "validation"
_NAME = "eval-only-"
_CHECKPOINTS = "checkpoints.json"
"""in the launch's folder: the steps' folders that are validated"""
_BYTES = 1 << 22


@dataclass(frozen=True)
class AskedCheckpoint:
    """One checkpoint, and what it is asked."""

    folder: Path
    manifest: Manifest
    config: RunConfig
    """of its training, but for the groups and the micro-batch of the launch"""
    task: LossTask

    @property
    def evaluated(self) -> EvaluatedCheckpoint:
        """Whose result it is."""
        tokens = whole_of(self.manifest.facts.get("tokens"))
        return EvaluatedCheckpoint(self.config.name, step_of(self.folder), tokens, self.manifest.id)

    @property
    def parents(self) -> list[str]:
        """Ids of the full checkpoint and of its weights alone."""
        if self.manifest.facts.get("content") == "weights":
            return [self.manifest.id, *self.manifest.parents[:1]]
        return [self.manifest.id, weights_of(self.manifest).id]


def choose_checkpoints(
    run: RunFolder, which: str, allow_invalid: bool, passed_over: Callable[[str], None]
) -> list[Path]:
    """Folders of checkpoints by the word behind `--eval-only`: none for the newest whole one, a step, or `all`; the
    earliest first. What was left behind is taken only where its step is named.

    Args:
        passed_over: hears of each that is not whole.

    Raises:
        Refused: the word is none of these.
        Missing: there is no such checkpoint.
        Damaged: there is none that is whole.
    """
    if which not in (NEWEST, ALL) and not (which.isascii() and which.isdecimal()):
        raise Refused(
            f"--eval-only {shortened(which, 40)}: give nothing for the newest checkpoint, a step (--eval-only 1000), "
            "or all"
        )
    if which in (NEWEST, ALL):
        checkpoints_with_weights(run)  # raises Missing where there is none
        among = [*list_checkpoints(run.checkpoints), *list_checkpoints(run.checkpoints, "weights")]
        folders = on_present_branch(run, among)
    else:
        folders = checkpoints_with_weights(run, int(which))[::-1]
    found: dict[int, Path] = {}
    problems: list[str] = []
    for folder in sorted(folders, key=lambda each: -step_of(each)):  # a full one stays in front of its weights alone
        if step_of(folder) in found:
            continue
        inspection = inspect(folder, allow_invalid)
        if inspection.problems:
            problems.append(inspection.problems[0])
            continue
        found[step_of(folder)] = folder
        if which == NEWEST:
            break
    for problem in problems if found else ():
        passed_over(problem)
    if not found:
        raise Damaged(
            f"no whole checkpoint to validate: {listed(problems)}; restore one from a copy, or name another step"
        )
    return [found[step] for step in sorted(found)]


def asked_of(folder: Path, launched: RunConfig) -> AskedCheckpoint:
    """What a launch of this configuration asks of a checkpoint: groups, their samples and the length are the launch's;
    model, objective and seed are the checkpoint's.

    Raises:
        Refused: the launch's model or objective is another.
        TrainyardError: the checkpoint cannot be read.
    """
    inspection = inspect(folder, launched.data.allow_invalid)
    if inspection.manifest is None or inspection.problems:
        raise Damaged("; ".join(inspection.problems))
    trained = load_resolved(folder / CONFIG)
    for section in ("model", "objective"):
        _require_same(section, getattr(trained, section), getattr(launched, section), folder)
    of_run, now = trained.evaluation, launched.evaluation
    samples = None if now is None or (of_run and of_run.samples == now.samples) else now.samples
    length = launched.data.sequence_length
    config = trained.model_copy(
        update={
            "data": launched.data.model_copy(update={"sequence_length": trained.data.sequence_length}),
            "evaluation": of_run or now,
            "training": trained.training.model_copy(update={"micro_batch_size": launched.training.micro_batch_size}),
        }
    )
    settings = TaskSettings(limit=samples, length=None if length == trained.data.sequence_length else length)
    return AskedCheckpoint(folder, inspection.manifest, config, LossTask(TASK, settings))


def _require_same(name: str, trained: Section, launched: Section, folder: Path) -> None:
    before, now = trained.model_dump(), launched.model_dump()
    differing = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if differing:
        told = ", ".join(
            f"{name}.{key} is {shortened(json.dumps(before.get(key)), 80)} in it and "
            f"{shortened(json.dumps(now.get(key)), 80)} now"
            for key in differing[:5]
        )
        raise Refused(
            f"checkpoint {printable(folder.name)} is validated as what it is: {told}; give the launch the "
            f"checkpoint's own {name} (--{name}.{differing[0]} VALUE)"
        )


def layout_of(launched: RunConfig, processes: int) -> Layout:
    """Tensor and pipeline of the run; data-parallel ranks are what is left of the processes."""
    parallel = launched.parallel
    return Layout(parallel.tensor, parallel.pipeline, processes // (parallel.tensor * parallel.pipeline))


def make_folder(run: RunFolder, launched: RunConfig, folders: Sequence[Path], owner: Mapping[str, Any]) -> Path:
    """A folder of the launch's own, whole from the first moment on.

    Raises:
        TrainyardError: the run's folder cannot be written to.
    """
    content = {"checkpoints": [folder.name for folder in folders]}
    files = {
        CONFIG: to_yaml(launched).encode(),
        OWNER: (json.dumps(dict(owner)) + "\n").encode(),
        _CHECKPOINTS: (json.dumps(content) + "\n").encode(),
    }
    try:
        run.logs.mkdir(parents=True, exist_ok=True)
        folder = temporary_path(run.logs / _NAME)
        folder.mkdir()
        try:
            for name, text in files.items():
                write_atomically(folder / name, text)
            return _numbered(folder, run)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise TrainyardError(
            f"{printable(run.path)}: cannot be written to ({error}); give this user the right to, or make room there"
        ) from error


def _numbered(folder: Path, run: RunFolder) -> Path:
    """The folder under its number: the first one that no other launch takes."""
    while True:
        numbers = [name.removeprefix(_NAME) for name in names_in(run.logs) if name.startswith(_NAME)]
        number = max((int(each) for each in numbers if each.isascii() and each.isdecimal()), default=0) + 1
        target = run.logs / f"{_NAME}{number:04d}"
        try:
            return folder.rename(target)
        except OSError:  # onto a folder with files in it a rename fails
            if not target.exists():
                raise


def chosen_checkpoints(launch_directory: Path) -> list[Path]:
    """What `make_folder` wrote down.

    Raises:
        Damaged: it is no such folder.
    """
    path = launch_directory / _CHECKPOINTS
    names = parse_object(read_bounded(path, _BYTES), printable(path)).get("checkpoints")
    if not isinstance(names, list) or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise Damaged(f"{printable(path)} names no checkpoints; launch the evaluation again")
    return [RunFolder(launch_directory.parents[1]).checkpoints / name for name in names]
