"""From a task that is ready to the objects of lm-eval that ask it. Imports lm-eval, within functions."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from megatron_patches.evaluation.tasks.harness_task import resolve
from megatron_patches.evaluation.tasks.task import HarnessTask


def load(task: HarnessTask) -> dict[str, Any]:
    """What lm-eval's `TaskManager.load` gives, for its `evaluate`: tasks by name, groups by name, and their members.

    Of a task of the harness only the folders that its files lie in are indexed: an index of all takes ten seconds.
    Errors of lm-eval, and of the libraries that fetch data for it, come through as they are.
    """
    from lm_eval.tasks import TaskManager

    with _quiet():
        if isinstance(task.config, str):
            manager = TaskManager(include_defaults=False, include_path=list(resolve(task.config).folders))
            return dict(manager.load(task.config))
        manager = TaskManager(include_defaults=False)
        return dict(manager.load([_built(manager, task.config)]))


def _built(manager: Any, config: Mapping[str, Any]) -> Any:
    """A task, or a group of tasks: the manager's own way would pass a group's keys on to its members, which refuse
    them.
    """
    if "group" not in config:
        return manager.load(deepcopy(dict(config)))["tasks"][config["task"]]
    from lm_eval.api.group import Group

    group = Group.from_config({**config, "task": [member["task"] for member in config["task"]]})
    for member in config["task"]:
        group.add(_built(manager, member))
    return group


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval warns of each task that it has its documents from a function, as all of ours have."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
