"""A task of local files, read and checked: given to lm-eval in this process, or written down for its command line."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from megatron_patches.errors import Refused
from megatron_patches.evaluation.tasks.formats.local_format import CLUSTER, PART, LocalFormat, Questions, ReadSource
from megatron_patches.evaluation.tasks.task import HarnessTask, TaskSettings

ASKED, SOLVED = "test", "examples"
"""splits of the documents"""


@dataclass(frozen=True)
class LocalTask:
    """All that lm-eval must know of it."""

    name: str
    format: LocalFormat
    settings: TaskSettings
    source: ReadSource

    @property
    def shots(self) -> int:
        """Solved items in front of each question."""
        return self.settings.shots or 0

    @cached_property
    def members(self) -> dict[str, Questions]:
        """What each of lm-eval's tasks asks, by its name: one, or those of a group."""
        questions = self.source.questions
        if isinstance(questions, Questions):
            return {self.name: questions}
        return {f"{self.name}_{member}": each for member, each in questions.items()}

    def group(self) -> dict[str, Any] | None:
        """lm-eval's group of the members, which are named; None of a task that is none."""
        if isinstance(self.source.questions, Questions):
            return None
        metrics = [metric["metric"] for metric in self.format.asked["metric_list"]]
        return {
            "group": self.name,
            "task": list(self.members),
            "aggregate_metric_list": [{"metric": metric, "weight_by_size": True} for metric in metrics],
            "metadata": {"version": self.format.version},
        }

    def member(self, name: str) -> dict[str, Any]:
        """lm-eval's configuration of a member, but for the place of its documents."""
        questions = self.members[name]
        config: dict[str, Any] = {
            "task": name,
            "test_split": ASKED,
            **self.format.asked,
            "num_fewshot": self.shots,
            "metadata": {"version": self.format.version},
        }
        if questions.description:
            config["description"] = questions.description
        if not isinstance(self.source.questions, Questions):
            config["task_alias"] = name.removeprefix(f"{self.name}_")
        if self.shots:
            config |= {"fewshot_split": SOLVED, "fewshot_config": {"sampler": "first_n"}}
        return config

    def splits(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """A member's documents by split; of solved items those that are shown."""
        questions = self.members[name]
        found = {ASKED: [dict(document) for document in questions.documents]}
        if self.shots:
            found[SOLVED] = [dict(each) for each in questions.examples[: self.shots]]
        return found

    def definition(self) -> str:
        """sha256 of what decides the numbers: the format and its version, prompts, answers, parts and clusters as
        lm-eval gets them, solved items that are shown, and settings. Neither names nor places of files are part of it.
        """
        group = isinstance(self.source.questions, Mapping)
        said = {
            "format": self.format.word,
            "version": self.format.version,
            "asked": _named_functions(self.format.asked),
            "by_token": self.format.by_token,
            "documents": [
                [name.removeprefix(f"{self.name}_") if group else "", self.members[name].description, _shown(splits)]
                for name in self.members
                for splits in [{**self.splits(name)}]
            ],
            "shots": self.shots,
            "limit": self.settings.limit,
            "length": self.settings.length,
        }
        return hashlib.sha256(_canonical(said)).hexdigest()

    def for_harness(self) -> HarnessTask:
        """The task for lm-eval in this process."""
        members = [{**self.member(name), "custom_dataset": _loader(self.splits(name))} for name in self.members]
        group = self.group()
        return HarnessTask(
            name=self.name,
            version=self.format.version,
            definition=self.definition(),
            settings=self.settings,
            config=members[0] if group is None else {**group, "task": members},
            data=self.source.data,
            chance=self.source.chance,
            part_of=lambda document: document.get(PART),
            cluster_of=lambda document: document.get(CLUSTER),
            by_token=self.format.by_token,
        )


def check_shots(task: LocalTask, told: str) -> None:
    """Raises Refused where solved items are too few, or would not be shown.

    Args:
        told: how errors call the task.
    """
    there = {name: len(questions.examples) for name, questions in task.members.items()}
    if task.shots and not task.format.takes_shots:
        raise Refused(f"{told}: {task.format.word} is asked without solved items; leave out --shots")
    if few := [(count, name) for name, count in there.items() if count < task.shots]:
        count, name = few[0]
        of_part = f" of {name.removeprefix(f'{task.name}_')}" if task.group() else ""
        where = "in dev/ of the folder, or in a file after +" if task.group() else "in a file after +"
        raise Refused(
            f"{told}: --shots {task.shots} needs as many solved items{of_part}, and there are {count}; give them "
            f"{where}, as in {task.format.word}:FILE+EXAMPLES"
        )


def _shown(splits: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(splits)).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()


def _named_functions(value: Any) -> Any:
    """A configuration with names in place of functions: what they do, the format's version says."""
    if callable(value):
        return f"function {value.__name__}"
    if isinstance(value, Mapping):
        return {key: _named_functions(each) for key, each in value.items()}
    return [_named_functions(each) for each in value] if isinstance(value, list) else value


def _loader(splits: Mapping[str, list[dict[str, Any]]]) -> Callable[..., dict[str, Any]]:
    """lm-eval calls it with what the configuration says of the task; it copies configurations, but no function."""

    def load(**_: object) -> dict[str, Any]:
        from datasets import Dataset

        return {split: Dataset.from_list(documents) for split, documents in splits.items()}

    return load
