"""A task that is ready to be asked: everything that can be refused has been. Torch-free."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from megatron_patches.artefacts.evaluations.result import DataFile, label_of
from megatron_patches.errors import Refused
from megatron_patches.evaluation.tasks.fine_tuning import FineTuning


@dataclass(frozen=True)
class TaskSettings:
    """What a command line asks for beside the task; None is what the task says itself."""

    shots: int | None = None
    """solved items in front of each question"""
    limit: int | None = None
    """only so many items, the first ones; of a task with parts, of each part"""
    length: int | None = None
    """most tokens that the model sees at once, in place of its training's"""
    fine_tuning: FineTuning | None = None
    """how tasks that fine-tune do so"""


@dataclass(frozen=True)
class HarnessTask:
    """A task that lm-eval asks, with an export or in the engine."""

    name: str
    version: str
    definition: str
    """sha256 of everything but the model that decides the numbers"""
    settings: TaskSettings
    config: str | Mapping[str, Any]
    """what `lm_eval.tasks.TaskManager.load` takes: the name of one of its own, or a configuration of ours: a task's, or
    a group's, whose members are the parts"""
    data: tuple[DataFile, ...] = ()
    chance: Mapping[str, float] = field(default_factory=dict)
    """what a guess scores, by metric"""
    part_of: Callable[[Mapping[str, Any]], str | None] = lambda document: None
    """the part that a document belongs to, where the harness does not divide the task itself"""
    cluster_of: Callable[[Mapping[str, Any]], str | None] = lambda document: None
    by_token: bool = False
    """a multiple choice that is also scored by the mean log-likelihood of each ending's tokens (`acc_norm_token`)"""

    @property
    def label(self) -> str:
        """Name of its result."""
        return label_of(self.name, self.settings.shots, self.settings.limit, self.settings.length)

    @property
    def written(self) -> int:
        """Most tokens that the model writes to a question; 0 where nothing is written, and of a task of the harness's
        own, which lm-eval alone knows."""
        if isinstance(self.config, str):
            return 0
        members = self.config["task"] if "group" in self.config else [self.config]
        return max(each.get("generation_kwargs", {}).get("max_gen_toks", 0) for each in members)


@dataclass(frozen=True)
class LossTask:
    """The loss of a run's own objective, computed in the engine: on its validation groups, or on a dataset."""

    name: str
    settings: TaskSettings
    """`limit` counts samples of each group"""
    dataset: str | None = None
    """prefix of a dataset's files; None means the run's validation groups"""
    groups: tuple[str, ...] = ()
    """only these of them; empty means all"""

    @property
    def label(self) -> str:
        """Name of its result."""
        return label_of(self.name, self.settings.shots, self.settings.limit, self.settings.length)


def refuse_writing(name: str, written: int, window: int) -> None:
    """Raises Refused where a task lets the model write as many tokens as it sees at once, or more."""
    if written >= window:
        raise Refused(
            f"{name} lets the model write {written:,} tokens, and it sees {window:,} at once, the question included; "
            "give a longer --length where the model's positions allow it, or leave the task out"
        )
