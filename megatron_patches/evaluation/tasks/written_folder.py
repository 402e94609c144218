"""Local tasks as a folder of YAML files, so that lm-eval's own command line asks the very same."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import yaml

from megatron_patches.artefacts.new_folder import refuse_place
from megatron_patches.atomic_files import fsync_folder, temporary_path
from megatron_patches.errors import Refused
from megatron_patches.evaluation.tasks.formats import local_documents, number_answers
from megatron_patches.evaluation.tasks.local_task import LocalTask

_MODULES = (local_documents, number_answers)


def write_tasks(folder: Path, tasks: Sequence[LocalTask]) -> None:
    """Writes a new folder for `--include_path`: a YAML file a task, the documents, and the functions that score them.

    It may be moved: nothing in it names a place outside.

    Raises:
        Refused: the folder is there already, or cannot be made; or two tasks or members have one name.
        OSError: the disk is full; nothing is left behind.
    """
    refuse_place(folder)
    _refuse_twice([name for task in tasks for name in _yaml_names(task)])
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    beside = temporary_path(folder.absolute())
    try:
        (beside / local_documents.FOLDER).mkdir(parents=True)
        for task in tasks:
            for name, content in _files(task):
                (beside / name).write_bytes(content)
        for module in _MODULES:
            source = Path(str(module.__file__))
            (beside / source.name).write_bytes(source.read_bytes())
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    fsync_folder(folder.absolute().parent)


def _yaml_names(task: LocalTask) -> list[str]:
    return [*([] if task.group() is None else [task.name]), *task.members]


def _refuse_twice(names: Sequence[str]) -> None:
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Refused(f"two tasks have the name {twice}; give one of them another, as in NAME=WORD:SOURCE")


def _files(task: LocalTask) -> Iterator[tuple[str, bytes]]:
    if (group := task.group()) is not None:
        yield f"{task.name}.yaml", _yaml(group)
    for name in task.members:
        loaded = {"custom_dataset": local_documents.load, "dataset_kwargs": {"documents": name}}
        yield f"{name}.yaml", _yaml({**task.member(name), **loaded})
        for split, documents in task.splits(name).items():
            lines = "".join(f"{json.dumps(document)}\n" for document in documents)
            yield f"{local_documents.FOLDER}/{name}.{split}.jsonl", lines.encode()


class _Dumper(yaml.SafeDumper):
    """Functions are named by module and name, as lm-eval finds them beside the file."""


def _named(dumper: yaml.SafeDumper, function: FunctionType) -> yaml.ScalarNode:
    return dumper.represent_scalar("!function", f"{function.__module__.rpartition('.')[2]}.{function.__name__}")


_Dumper.add_representer(FunctionType, _named)


def _yaml(config: Mapping[str, Any]) -> bytes:
    return yaml.dump(dict(config), Dumper=_Dumper, sort_keys=False, width=120).encode()
