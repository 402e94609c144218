"""Evaluations at two places: one grows with each task that is evaluated, here and perhaps there too.

Results are merged by label. A push replaces what the location has where nothing of that is lost: each of its results is
here, the same, or was sent from here. A pull adds the results that are missing here. Where both have another result of
one label, neither is taken for the newer one: that is told, with the remedy.
"""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from megatron_patches.artefacts.evaluations.result import ITEMS_ENDING, RESULT_ENDING, is_label, read_result
from megatron_patches.artefacts.evaluations.sealing import mark, seal, share_mark
from megatron_patches.artefacts.evaluations.shelf import (
    checkpoints_of,
    is_evaluation_name,
    is_sealed,
    put_result,
    read_evaluation,
)
from megatron_patches.artefacts.inside import refuse_outside
from megatron_patches.artefacts.manifest import (
    MANIFEST,
    FileRecord,
    Manifest,
    read_manifest,
)
from megatron_patches.artefacts.storage.fetch import (
    fetch_artefact,
    fetch_files,
    refuse_without_space,
    unfinished_folder,
)
from megatron_patches.artefacts.storage.store import AnotherArtefact, DamagedCopy, Store
from megatron_patches.artefacts.storage.transfer import (
    Options,
    TransferOutcome,
    TransferResult,
    remote_manifest,
    send_artefact,
)
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.files import is_folder, names_in, read_bounded
from megatron_patches.foreign.printable import printable, shortened

_Files = dict[str, dict[str, FileRecord]]
"""of each label its files, by their endings"""


def is_of_a_step(manifest: Manifest, name: str) -> bool:
    """Whether an artefact is the evaluation of a step, which grows."""
    return manifest.kind == "evaluation" and is_evaluation_name(name)


def seal_all(shelf: Path) -> list[str]:
    """Seals every evaluation whose manifest does not name its results, as a writer that was killed leaves it.

    Returns:
        A sentence for each that cannot be sealed.
    """
    problems: list[str] = []
    try:
        names = names_in(shelf)
    except TrainyardError as error:
        return [str(error)]
    for name in names:
        folder = shelf / name
        if is_evaluation_name(name) and is_folder(folder):
            evaluation = read_evaluation(folder, [])
            if evaluation.results and not is_sealed(evaluation):
                try:
                    seal(folder)
                except (TrainyardError, OSError) as error:
                    problems.append(str(error))
    return problems


def send_evaluation(
    store: Store, prefix: str, manifest: Manifest, folder: Path, options: Options, doubted: bool, sent: str | None
) -> TransferOutcome:
    """Brings an evaluation to a location, also in place of a copy that has fewer results.

    Args:
        sent: id of what was sent there last from here; None where nothing was.

    Raises:
        AnotherArtefact: the copy there is of another checkpoint, or has results that are not here.
        TrainyardError: as `send_artefact`.
    """
    remote = remote_manifest(store, prefix)
    if remote is None or remote.id == manifest.id or options.replace:
        return send_artefact(store, prefix, manifest, folder, options, doubted)
    if remote.kind != "evaluation" or not set(remote.parents) & set(manifest.parents):
        raise AnotherArtefact(
            f"{store.at(prefix)} holds the {remote.kind} {remote.id[:12]} of another checkpoint; --replace puts this "
            "one in its place"
        )
    here, there = _files_of(manifest), _files_of(remote)
    lacking = [label for label in there if label not in here]
    different = [label for label in there if label in here and here[label] != there[label] and remote.id != sent]
    if lacking or different:
        raise AnotherArtefact(
            f"{store.at(prefix)} has {_named(lacking, different)}: bring them here first, and push again: "
            f"tools/sync-to-hub pull {folder.parents[1].name} --what evals; or put these in their place with --replace"
        )
    if manifest.status.is_older_than(remote.status):
        manifest = manifest.model_copy(update={"status": remote.status})
    return send_artefact(store, prefix, manifest, folder, replace(options, replace=True), doubted)


def fetch_evaluation(store: Store, prefix: str, manifest: Manifest, target: Path, options: Options) -> TransferOutcome:
    """Brings an evaluation here; into one of the same checkpoint the results that it lacks.

    Raises:
        AnotherArtefact: the one here is of another checkpoint, or has another result of the same label.
        DamagedCopy: a file there is not what the manifest says, or no result.
        TrainyardError: as `fetch_artefact`.
    """
    if not is_folder(target):
        outcome = fetch_artefact(store, prefix, manifest, target, options)
        share_mark(target)
        return outcome
    problems: list[str] = []
    here = read_evaluation(target, problems)
    if problems:
        raise TrainyardError(f"{problems[0]}. Remove that file, or restore it, then pull")
    if not here.results:
        raise TrainyardError(f"{printable(target)} holds no result: remove the folder, then pull")
    if not checkpoints_of(here) & set(manifest.parents):
        raise AnotherArtefact(
            f"{printable(target)} is the evaluation of another checkpoint of this step; move it away, or pull elsewhere"
        )
    present, there = _files_of(seal(target)), _files_of(manifest)
    different = [label for label in there if label in present and present[label] != there[label]]
    if different:
        raise AnotherArtefact(
            f"{printable(target)} has another result of {_list(different)} than {store.at(prefix)}; to take the one "
            f"there, remove {_list(f'{label}{RESULT_ENDING}' for label in different)} here, then pull; to keep the one "
            "here, push with --replace once all others are here"
        )
    missing = {label: files for label, files in there.items() if label not in present}
    moved = [file for files in missing.values() for file in files.values()]
    if moved:
        _fetch_missing(store, prefix, missing, target, options)
    renewed = _take_status(manifest, target)
    result: TransferResult = "fetched" if moved else "status renewed" if renewed else "present"
    return TransferOutcome(result, len(moved), sum(file.size for file in moved))


def _fetch_missing(store: Store, prefix: str, missing: _Files, target: Path, options: Options) -> None:
    unfinished = unfinished_folder(target)
    files = [file for of_label in missing.values() for file in of_label.values()]
    refuse_without_space(sum(file.size for file in files), unfinished)
    fetch_files(store, prefix, files, unfinished, options)
    try:
        for label in missing:
            read_result(unfinished / f"{label}{RESULT_ENDING}")
    except TrainyardError as error:
        raise DamagedCopy(f"{store.at(prefix)}: {error}") from None
    for label, of_label in missing.items():
        result, items = (unfinished / f"{label}{ending}" for ending in (RESULT_ENDING, ITEMS_ENDING))
        refuse_outside(target, target.parent)
        put_result(target, label, _content(result), _content(items) if ITEMS_ENDING in of_label else None)
    shutil.rmtree(unfinished)
    seal(target)


def _content(path: Path) -> bytes:
    return read_bounded(path, path.stat().st_size)


def _take_status(remote: Manifest, target: Path) -> bool:
    """Of two words about one evaluation the later counts; whether that is the location's."""
    if not read_manifest(target / MANIFEST).status.is_older_than(remote.status):
        return False
    is_own = remote.status.cause == remote.id
    mark(target, remote.status.model_copy(update={"cause": None}) if is_own else remote.status)
    return True


def _files_of(manifest: Manifest) -> _Files:
    """By label; files of other names are nobody's result, and are left alone."""
    found: _Files = {}
    for file in manifest.files:
        for ending in (ITEMS_ENDING, RESULT_ENDING):
            label = file.path.removesuffix(ending)
            if label != file.path and is_label(label):
                found.setdefault(label, {})[ending] = file
                break
    return {label: files for label, files in found.items() if RESULT_ENDING in files}


def _named(lacking: list[str], different: list[str]) -> str:
    told = [f"results that are not here ({_list(lacking)})"] if lacking else []
    told += [f"other results of {_list(different)}"] if different else []
    return " and ".join(told)


def _list(labels: Iterable[str]) -> str:
    return ", ".join(shortened(label, 80) for label in labels)
