"""The shelf `evals/` of a run: a folder for each evaluated step, with a result for each task and one manifest.

Results come one by one, also from several jobs at once. Each is written whole under its own name, its items before it;
then the folder is sealed (sealing.py). A step that was evaluated, rolled back, and saved again has another checkpoint:
the former one's folder is moved aside, as `step-0000001000.replaced-1`, and is listed no more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
from megatron_patches.artefacts.evaluations.sealing import labels_in, names_what_is_there, seal, step_in
from megatron_patches.artefacts.folders import checkpoint_name, parse_checkpoint_name, replaced_path
from megatron_patches.artefacts.inside import refuse_link_of_others
from megatron_patches.artefacts.manifest import MANIFEST, Manifest, read_manifest
from megatron_patches.artefacts.run_folder import EVALS, RunFolder
from megatron_patches.atomic_files import fsync_folder, write_atomically
from megatron_patches.errors import Missing, Refused, TrainyardError
from megatron_patches.foreign.files import is_folder, names_in
from megatron_patches.foreign.printable import printable, shortened


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
        return step_in(self.folder)

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
    try:
        names = names_in(shelf)
    except TrainyardError as error:
        problems.append(str(error))
        return []
    return [
        read_evaluation(shelf / name, problems)
        for name in names
        if is_evaluation_name(name) and is_folder(shelf / name)
    ]


def is_evaluation_name(name: str) -> bool:
    """Whether a folder on the shelf has the name of a step's evaluation."""
    parsed = parse_checkpoint_name(name)
    return parsed is not None and (parsed.content, parsed.ending) == ("full", "")


def read_evaluation(folder: Path, problems: list[str]) -> Evaluation:
    """What a folder holds; what is damaged is added to `problems`."""
    manifest = None
    results = {}
    try:
        manifest = read_manifest(folder / MANIFEST)
    except Missing:
        pass
    except TrainyardError as error:
        problems.append(str(error))
    try:
        labels = labels_in(folder)
    except TrainyardError as error:
        problems.append(str(error))
        return Evaluation(folder, manifest, {})
    step = step_in(folder)
    for label in labels:
        try:
            results[label] = read_result(folder / f"{label}{RESULT_ENDING}", step)
        except TrainyardError as error:
            problems.append(str(error))
    return Evaluation(folder, manifest, results)


def is_sealed(evaluation: Evaluation) -> bool:
    """Whether its manifest names the results that are there as they are, and no others."""
    return evaluation.manifest is not None and names_what_is_there(evaluation.manifest, evaluation.folder)


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
        Refused: the label can name no file, or a link of another user lies where the folder is expected.
        Damaged: another file of the folder cannot be read. The result is written, and sealed with the next one.
        OSError: as writing does. The result is whole or absent in any case.
    """
    if not is_label(result.label):
        raise Refused(f"'{shortened(result.label)}' cannot name a result's file; name the task otherwise: NAME=TASK")
    folder = evaluation_folder(run, result.step)
    _refuse_what_is_no_folder(folder.parent)  # people may link it to a larger disk, as they may all of a run's folders
    _refuse_what_is_no_folder(folder)
    if folder.is_symlink():
        raise Refused(f"{printable(folder)} is a link, where an evaluation is written; remove it")
    _make_room(folder, parents)
    folder.mkdir(parents=True, exist_ok=True)
    put_result(folder, result.label, result_bytes(result), items_bytes(items) if items else None)
    seal(folder)
    return folder


def put_result(folder: Path, label: str, result: bytes, items: bytes | None) -> None:
    """Writes a result and its items in place of those of the same label. A result never stands beside other items, also
    where the writer is killed: the former result goes first, and the new one comes last.

    Raises:
        Refused: a folder lies where one of them is written.
        OSError: as writing does.
    """
    of_result, of_items = (folder / f"{label}{ending}" for ending in (RESULT_ENDING, ITEMS_ENDING))
    for path in (of_result, of_items):
        if is_folder(path) and not path.is_symlink():
            raise Refused(f"{printable(path)} is a folder, where a file is written; move it away")
    of_result.unlink(missing_ok=True)
    if items is None:
        of_items.unlink(missing_ok=True)
    else:
        write_atomically(of_items, items)
    write_atomically(of_result, result)


def _refuse_what_is_no_folder(path: Path) -> None:
    refuse_link_of_others(path)
    if (path.is_symlink() or path.exists()) and not is_folder(path):
        raise Refused(f"{printable(path)} is no folder, where evaluations are written; move it away")


def _make_room(folder: Path, parents: Sequence[str]) -> None:
    """Moves aside what is of another checkpoint that had the same step."""
    former = checkpoints_of(read_evaluation(folder, [])) if is_folder(folder) else set()
    if former and not former & set(parents):
        folder.rename(replaced_path(folder))
        fsync_folder(folder.parent)


def checkpoints_of(evaluation: Evaluation) -> set[str]:
    """Ids of the checkpoint that was evaluated, as results state them; where none can be read, as the manifest does."""
    stated = {result.checkpoint for result in evaluation.results.values()}
    return stated or set(evaluation.manifest.parents if evaluation.manifest else ())
