"""A task of the harness itself: what its YAML files say of it, without loading its data."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from megatron_patches.artefacts.evaluations.result import DataFile
from megatron_patches.errors import Damaged, Refused
from megatron_patches.evaluation.tasks.harness_names import HarnessNames, harness_folder, read_names
from megatron_patches.evaluation.tasks.spec import TaskSpec
from megatron_patches.evaluation.tasks.task import HarnessTask, TaskSettings
from megatron_patches.foreign.printable import printable, shortened

_BY_CHOICE = ("acc", "acc_norm")
_NAMED = 8
"""tasks of a tag that are named"""


@dataclass(frozen=True)
class Resolved:
    """A task or group of the harness with all that it is made of."""

    own: Mapping[str, Any]
    """what its file and those that it includes say"""
    tasks: list[Mapping[str, Any]]
    """of a group, those of all its members; else itself"""
    files: set[Path]
    """YAML files of all of them, and the Python files beside them, whose functions they name"""

    @property
    def folders(self) -> list[Path]:
        """The folders of the files: an index of these alone is made in no time."""
        return sorted({path.parent for path in self.files})


def harness_task(spec: TaskSpec, settings: TaskSettings) -> HarnessTask:
    """A task, or a group of tasks, that the harness has of its own.

    Raises:
        Refused: it is a tag of several tasks, which has no result of its own; or it takes no solved items.
        Damaged: its files are not as the harness writes them.
    """
    found = resolve(spec.word)
    if settings.shots and (fixed := _without_shots(found)):
        raise Refused(f"{spec.name}: {fixed} is asked without solved items; leave out --shots")
    return HarnessTask(
        name=spec.name,
        version=str((found.own.get("metadata") or {}).get("version", "none")),
        definition=_definition(spec.word, found.files, settings),
        settings=settings,
        config=spec.word,
        data=tuple(DataFile(name=name) for name in _datasets(found)),
        chance=_chance(found),
    )


def resolve(word: str) -> Resolved:
    """All that a task or group of the harness is made of.

    Raises:
        Refused: it is a tag.
        Damaged: a file cannot be read.
    """
    names = read_names(harness_folder())
    if word not in names.files:
        tasks = names.tags[word]
        named = ", ".join(tasks[:_NAMED]) + (f" and {len(tasks) - _NAMED} more" if len(tasks) > _NAMED else "")
        raise Refused(
            f"{word} is a tag of {len(tasks)} tasks of the harness, which have no common result; name some: {named}"
        )
    files = set[Path]()
    tasks_found = list(_tasks_of(word, names, files, ()))
    own = _read(names.files[word], files)
    beside = {each for folder in {path.parent for path in files} for each in folder.glob("*.py")}
    return Resolved(own, tasks_found, files | beside)


def _tasks_of(member: Any, names: HarnessNames, files: set[Path], way: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    """The tasks below a member of a group: a name, or a mapping that names one with changes, or an inner group."""
    if isinstance(member, Mapping):
        inner = member.get("task")
        name = member.get("group", inner if isinstance(inner, str) else None)
        if isinstance(name, str) and name in names.files:
            yield from _tasks_of(name, names, files, way)
        else:
            for each in inner if isinstance(inner, list) else []:
                yield from _tasks_of(each, names, files, way)
        return
    if member in way:
        raise Damaged(f"the harness's group {shortened(member)} is a member of itself; ask for its members by name")
    if member not in names.files:
        for tagged in names.tags.get(member, []):
            yield from _tasks_of(tagged, names, files, (*way, member))
        return
    config = _read(names.files[member], files)
    members = config.get("task")
    if not isinstance(members, list):
        yield config
        return
    for each in members:
        yield from _tasks_of(each, names, files, (*way, member))


def _read(path: Path, files: set[Path]) -> dict[str, Any]:
    """A YAML file with what it includes; all of them are added to the files."""
    files.add(path)
    try:
        content = yaml.load(path.read_bytes(), _Loader)
    except (OSError, yaml.YAMLError) as error:
        raise Damaged(f"{printable(path)} cannot be read ({shortened(error)}); install the harness again") from None
    if not isinstance(content, dict):
        raise Damaged(f"{printable(path)} describes no task; install the harness again")
    included = content.pop("include", [])
    merged = dict[str, Any]()
    for name in included if isinstance(included, list) else [included]:
        merged |= _read(Path(path.parent, name).resolve(), files)
    return merged | content


class _Loader(yaml.SafeLoader):
    """Functions are told by their names, and never loaded."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def _definition(word: str, files: set[Path], settings: TaskSettings) -> str:
    said = {
        "harness": word,
        "files": sorted((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files),
        "shots": settings.shots,
        "limit": settings.limit,
        "length": settings.length,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _without_shots(found: Resolved) -> str | None:
    """The name of a task that lm-eval asks without solved items whatever its command line says."""
    return next(
        (
            str(task.get("task"))
            for task in found.tasks
            if task.get("num_fewshot") == 0 or task.get("output_type") == "loglikelihood_rolling"
        ),
        None,
    )


def _datasets(found: Resolved) -> list[str]:
    return sorted({str(task["dataset_path"]) for task in found.tasks if task.get("dataset_path")})


def _chance(found: Resolved) -> dict[str, float]:
    """What a guess scores where all tasks have the same number of choices, written in their files."""
    counts = {_choices(task) for task in found.tasks}
    if len(counts) != 1 or not (count := counts.pop()):
        return {}
    asked = {metric["metric"] for task in found.tasks for metric in task.get("metric_list") or []}
    return {metric: 1 / count for metric in _BY_CHOICE if metric in asked}


def _choices(task: Mapping[str, Any]) -> int | None:
    choices = task.get("doc_to_choice")
    return len(choices) if task.get("output_type") == "multiple_choice" and isinstance(choices, list) else None
