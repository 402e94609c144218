"""The shelf `evals/` of a run: a folder for each evaluated step, with a result for each task and one manifest.

Results come one by one, also from several jobs at once. Each is written whole under its own name, its items before it;
then the folder is sealed: the manifest is made of the files that are there, and made again until it names all of them.
So whoever writes last names what the others wrote, and a result without a manifest is sealed by the next one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from megatron_patches.artefacts.evaluations.result import (
    ITEMS_ENDING,
    RESULT_ENDING,
    Item,
    TaskResult,
    is_label,
    items_bytes,
    read_items,
    read_result,
    result_bytes,
)
from megatron_patches.artefacts.folders import (
    checkpoint_name,
    parse_checkpoint_name,
    replaced_path,
)
from megatron_patches.artefacts.manifest import (
    MANIFEST,
    Manifest,
    Status,
    build_manifest,
    read_manifest,
    record_file,
    write_manifest,
)
from megatron_patches.artefacts.run_folder import EVALS, RunFolder
from megatron_patches.atomic_files import TEMPORARY, fsync_folder, write_atomically
from megatron_patches.errors import Damaged, Missing, TrainyardError
from megatron_patches.foreign.files import is_file, is_folder, names_in
from megatron_patches.foreign.printable import printable

RESULTS = "results"
"""fact of an evaluation's manifest: its metrics, by label and name"""
TASKS = "tasks"
"""the same: what is to be known of each label's result beside its metrics"""


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one step."""

    folder: Path
    manifest: Manifest | None
    """None where it was not sealed"""
    results: dict[str, TaskResult]
    """by label"""

    @property
    def step(self) -> int:
        """Of the checkpoint."""
        name = parse_checkpoint_name(self.folder.name.partition(".")[0])
        assert name is not None, self.folder
        return name.step

    @property
    def is_invalid(self) -> bool:
        """Whether it was marked so, by itself or with its checkpoint."""
        return self.manifest is not None and self.manifest.status.state == "invalid"


def evaluation_folder(run: RunFolder, step: int) -> Path:
    """Where the evaluation of a step lies."""
    return run.path / EVALS / checkpoint_name(step)


def list_evaluations(run: RunFolder, problems: list[str]) -> list[Evaluation]:
    """All of a run, the earliest step first; what cannot be read is added to `problems`, and is not among them."""
    shelf = run.path / EVALS
    found = []
    for name in sorted(names_in(shelf)) if is_folder(shelf) else []:
        parsed = parse_checkpoint_name(name)
        if parsed and (parsed.content, parsed.ending) == ("full", "") and is_folder(shelf / name):
            found.append(read_evaluation(shelf / name, problems))
    return found


def read_evaluation(folder: Path, problems: list[str]) -> Evaluation:
    """What a folder holds; what is damaged is added to `problems`."""
    manifest = None
    try:
        manifest = read_manifest(folder / MANIFEST)
    except Missing:
        pass
    except TrainyardError as error:
        problems.append(str(error))
    results = {}
    for label in labels_in(folder):
        try:
            results[label] = read_result(folder / f"{label}{RESULT_ENDING}")
        except TrainyardError as error:
            problems.append(str(error))
    return Evaluation(folder, manifest, results)


def labels_in(folder: Path) -> list[str]:
    """Of the results that are there, sorted."""
    names = names_in(folder) if is_folder(folder) else []
    labels = [name.removesuffix(RESULT_ENDING) for name in names if name.endswith(RESULT_ENDING)]
    return sorted(label for label in labels if is_label(label) and is_file(folder / f"{label}{RESULT_ENDING}"))


def items_of(folder: Path, label: str) -> list[Item]:
    """The items of a result.

    Raises:
        Missing: they were not kept.
        Damaged: they are none.
    """
    return read_items(folder / f"{label}{ITEMS_ENDING}")


def shelve(run: RunFolder, result: TaskResult, items: Sequence[Item], parents: Sequence[str]) -> Path:
    """Writes a result and its items, in place of those of the same label, and seals their folder.

    Args:
        parents: ids of the checkpoint that was evaluated; of a step's full checkpoint and its weights alone both, where
            both are known. A folder whose evaluation is of neither is moved aside first.

    Returns:
        The folder.

    Raises:
        Damaged: a file of the folder cannot be read.
        OSError: as writing does. The result is whole or absent in any case.
    """
    folder = evaluation_folder(run, result.step)
    _make_room(folder, parents)
    folder.mkdir(parents=True, exist_ok=True)
    if items:
        write_atomically(folder / f"{result.label}{ITEMS_ENDING}", items_bytes(items))
    else:
        (folder / f"{result.label}{ITEMS_ENDING}").unlink(missing_ok=True)
    write_atomically(folder / f"{result.label}{RESULT_ENDING}", result_bytes(result))
    seal(folder)
    return folder


def _make_room(folder: Path, parents: Sequence[str]) -> None:
    """Moves aside what is of another checkpoint that had the same step."""
    try:
        former = read_manifest(folder / MANIFEST).parents
    except Missing:
        former = [read_result(folder / f"{label}{RESULT_ENDING}").checkpoint for label in labels_in(folder)]
    if former and not set(former) & set(parents):
        folder.rename(replaced_path(folder))
        fsync_folder(folder.parent)


def seal(folder: Path) -> Manifest:
    """Writes the manifest of what a folder holds; a mark of the former one stays.

    Raises:
        Missing: it holds no result.
        Damaged: a result, or the former manifest, cannot be read.
    """
    while True:
        files = _files(folder)
        manifest = _manifest_of(folder, files)
        if manifest is not None:
            write_manifest(folder / MANIFEST, manifest)
            fsync_folder(folder)
        if _files(folder) == files:  # else another job has added a result meanwhile
            return manifest or read_manifest(folder / MANIFEST)


def is_sealed(evaluation: Evaluation) -> bool:
    """Whether its manifest names the results that are there, and none else."""
    if evaluation.manifest is None:
        return False
    return {file.path for file in evaluation.manifest.files} == set(_files(evaluation.folder))


def _files(folder: Path) -> list[str]:
    """Names of the results and their items, sorted."""
    labels = labels_in(folder)
    wanted = [name for label in labels for name in (label + RESULT_ENDING, label + ITEMS_ENDING)]
    return sorted(name for name in wanted if not name.endswith(TEMPORARY) and is_file(folder / name))


def _manifest_of(folder: Path, files: Iterable[str]) -> Manifest | None:
    """The manifest that these files make; None where the folder has it already."""
    results = [read_result(folder / f"{label}{RESULT_ENDING}") for label in labels_in(folder)]
    if not results:
        raise Missing(f"{printable(folder)} holds no result of an evaluation: evaluate the step, or remove the folder")
    if len({result.step for result in results}) > 1:
        raise Damaged(f"{printable(folder)} holds results of several steps: move those away that are of another one")
    checkpoints = list(dict.fromkeys(result.checkpoint for result in results))
    records = [record_file(folder / name, folder) for name in files]
    made = build_manifest("evaluation", records, facts_of(results), checkpoints)
    status = Status()
    try:
        former = read_manifest(folder / MANIFEST)
        if former.id == made.id:
            return None
        status = former.status
    except Missing:
        pass
    return made.model_copy(update={"status": status})


def facts_of(results: Sequence[TaskResult]) -> dict[str, JsonValue]:
    """What a manifest states of results of one step: so that they are found without reading them."""
    first = results[0]
    metrics: dict[str, JsonValue] = {}
    tasks: dict[str, JsonValue] = {}
    for result in results:
        metrics[result.label] = {name: metric.value for name, metric in result.metrics.items()}
        for part, found in result.parts.items():
            metrics[f"{result.label}.{part}"] = {name: metric.value for name, metric in found.metrics.items()}
        errors: JsonValue = {
            name: metric.standard_error for name, metric in result.metrics.items() if metric.standard_error is not None
        }
        about: dict[str, JsonValue] = {
            "task": result.task,
            "version": result.version,
            "definition": result.definition,
            "shots": result.shots,
            "examples": result.examples,
            "standard_errors": errors,
            "through": result.through,
        }
        for name, value in (("limit", result.limit), ("length", result.length)):
            if value is not None:
                about[name] = value
        tasks[result.label] = about
    known: dict[str, JsonValue] = {} if first.tokens is None else {"tokens": first.tokens}
    return {"run": first.run, "step": first.step, **known, RESULTS: metrics, TASKS: tasks}
