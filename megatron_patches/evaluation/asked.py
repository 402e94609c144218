"""What is asked of a checkpoint, and what of that its shelf has already. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from data_tools.opened_sources import in_silence
from megatron_patches.artefacts.evaluations.result import TaskResult
from megatron_patches.artefacts.evaluations.sealing import labels_in, seal
from megatron_patches.artefacts.evaluations.shelf import (
    checkpoints_of,
    evaluation_folder,
    is_sealed,
    read_evaluation,
)
from megatron_patches.artefacts.run_folder import CONFIG, RunFolder
from megatron_patches.errors import Damaged, Refused
from megatron_patches.evaluation.losses.loss_data import open_loss_data
from megatron_patches.evaluation.selection import Candidate
from megatron_patches.evaluation.tasks.all_tasks import Task
from megatron_patches.evaluation.tasks.encoder_tasks import FineTuningTask, MaskedTextTask
from megatron_patches.evaluation.tasks.fine_tuning import FineTuning
from megatron_patches.evaluation.tasks.prepare import prepare
from megatron_patches.evaluation.tasks.spec import split_tasks
from megatron_patches.evaluation.tasks.task import HarnessTask, LossTask, TaskSettings, refuse_writing
from megatron_patches.foreign.files import is_folder
from megatron_patches.foreign.printable import printable
from megatron_patches.generation.evaluated_run import at_length, laid_out
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved
from megatron_patches.transformers_exchange.choice import choose_format

Way = Literal["export", "engine"]


@dataclass(frozen=True)
class Asked:
    """What a command line asks of every checkpoint; it is sent to other processes as JSON."""

    tasks: tuple[str, ...]
    """as the command line has them"""
    shots: int | None = None
    limit: int | None = None
    length: int | None = None
    through: Way | None = None
    """what tasks of the harness are to be asked of; None takes an export where transformers can express the model"""
    tensor: int = 1
    pipeline: int = 1
    batch_size: int | None = None
    keep_exports: bool = False
    again: bool = False
    fine_tuning: FineTuning | None = None
    """how tasks that fine-tune do so; None as these say themselves"""

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """The inverse of `asdict`, also by way of JSON."""
        given = facts.get("fine_tuning")
        fine_tuning = None if given is None else FineTuning(**given)
        return cls(**{**facts, "tasks": tuple(facts["tasks"]), "fine_tuning": fine_tuning})

    def prepared(self) -> list[Task]:
        """The tasks, ready.

        Raises:
            TrainyardError: one of them cannot be asked.
        """
        settings = TaskSettings(self.shots, self.limit, self.length, self.fine_tuning)
        tasks = [prepare(spec, settings) for spec in split_tasks(self.tasks)]
        fine_tuned = [task.name for task in tasks if isinstance(task, FineTuningTask)]
        if self.fine_tuning is not None and not fine_tuned:
            raise Refused(
                "no task of --tasks is one that a model is fine-tuned on (glue-...); leave out --frozen, --epochs, "
                "--learning-rate, --train-batch, --pooling and --seeds"
            )
        if fine_tuned and self.tensor * self.pipeline > 1:
            raise Refused(
                f"{fine_tuned[0]}: a model is fine-tuned in one process; leave out --tensor-parallel and "
                "--pipeline-parallel, or ask other tasks in a command of their own"
            )
        return tasks

    def way(self, config: RunConfig) -> tuple[Way, str]:
        """What a run's tasks of the harness are asked of, and why the engine, where --through is not given.

        Raises:
            Refused: an export was asked for, and transformers has no such model; or the model continues no text.
        """
        if config.objective.prompt_inputs is None:
            raise Refused(
                f"{config.name} was not trained to continue text ({config.objective.describe()}), which tasks of the "
                f"harness need; it can be asked {_instead(config)}"
            )
        if self.through == "engine" or (self.through is None and self.tensor * self.pipeline > 1):
            return "engine", ""
        try:
            choose_format(config)
        except Refused as error:
            if self.through is not None:
                raise Refused(f"{error}\nleave out --through export: the engine asks the run's own layers") from None
            return "engine", str(error)
        return "export", ""


@dataclass(frozen=True)
class Standing:
    """How far a checkpoint is evaluated on what is asked."""

    missing: tuple[Task, ...]
    there: tuple[str, ...]
    """labels"""
    way: Way
    """what the tasks of the harness among those that are missing are asked of"""
    why: str = ""
    """why it is the engine where the command line does not say"""


def standing_of(run: RunFolder, candidate: Candidate, tasks: Sequence[Task], asked: Asked) -> Standing:
    """What is missing, once all that can be refused of it has been; results that lack a manifest get one.

    Raises:
        Refused: there is a result of the same name and another definition; the evaluation of the step is marked
            invalid; or the model cannot be asked like this.
        Damaged: another result of the step cannot be read.
        TrainyardError: data of a loss is not what the checkpoint was trained with.
    """
    config = load_resolved(candidate.folder / CONFIG)
    results = _results(run, candidate, {task.label for task in tasks})
    missing: list[Task] = []
    for task in tasks:
        definition = _definition(task, config, candidate)
        result = results.get(task.label)
        if result is None or asked.again:
            missing.append(task)
        elif result.definition != definition:
            raise Refused(_other_definition(run, result, task))
    there = tuple(task.label for task in tasks if task not in missing)
    if not missing:
        return Standing((), there, "export")
    window = at_length(config, asked.length).lengths.of("tokens")
    harness = [task for task in missing if isinstance(task, HarnessTask)]
    way, why = asked.way(config) if harness else ("engine", "")
    for task in harness:
        refuse_writing(task.name, task.written, window)
    _refuse_for_encoders([task.name for task in missing if isinstance(task, MaskedTextTask | FineTuningTask)], config)
    if way == "engine" or len(harness) < len(missing):
        laid_out(config, asked.tensor, asked.pipeline)
    return Standing(tuple(missing), there, way, why)


def _instead(config: RunConfig) -> str:
    """The tasks to ask instead, of a model that does not continue text."""
    validation = "for the loss of its own objective: --tasks validation"
    if config.objective.text_inputs is None:
        return validation
    return f"to fill in masked tokens (pseudo-perplexity:FILE), to learn tasks (glue-rte:FOLDER), or {validation}"


def _refuse_for_encoders(names: Sequence[str], config: RunConfig) -> None:
    """Raises Refused where tasks for encoders are asked of another model."""
    if names and config.objective.text_inputs is None:
        raise Refused(
            f"{', '.join(names)}: this is for encoders, whose tokens see the whole text, and {config.name} was trained "
            f"otherwise ({config.objective.describe()}); ask for the perplexity of a text: perplexity:FILE"
        )


def _definition(task: Task, config: RunConfig, candidate: Candidate) -> str:
    if not isinstance(task, LossTask):
        return task.definition
    return open_loss_data(config, candidate.folder, candidate.manifest, task, in_silence).definition()


def _results(run: RunFolder, candidate: Candidate, labels: set[str]) -> dict[str, TaskResult]:
    """Those of this checkpoint that are there."""
    folder = evaluation_folder(run, candidate.step)
    if not is_folder(folder):
        return {}
    problems: list[str] = []
    evaluation = read_evaluation(folder, problems)
    if (of := checkpoints_of(evaluation)) and not of & set(candidate.ids):
        return {}  # another checkpoint had this step; its evaluation is moved aside
    if evaluation.is_invalid:
        raise Refused(
            f"{printable(folder)} is marked invalid; take the mark back (tools/inventory revalidate), or move the "
            "folder away"
        )
    if problems and set(labels_in(folder)) - set(evaluation.results) - labels:
        raise Damaged(f"{problems[0]}, or move the file away")
    if evaluation.results and not problems and not is_sealed(evaluation):
        seal(folder)
    return evaluation.results


def _other_definition(run: RunFolder, result: TaskResult, task: Task) -> str:
    differs = []
    if not isinstance(task, LossTask):
        if result.version != task.version:
            differs.append(f"its version is {printable(result.version)}, and {task.version} is asked for")
        former, now = ({(file.sha256, file.rows) for file in files} for files in (result.data, task.data))
        if former != now:
            names = ", ".join(sorted({printable(Path(file.name).name) for file in result.data})) or "no file"
            differs.append(f"it is of other data ({names})")
    if isinstance(task, FineTuningTask) and result.fine_tuning != task.fine_tuning.facts():
        differs.append("it was fine-tuned with other settings")
    what = " and ".join(differs) or "prompts, metrics, data or settings are others"
    return (
        f"{run.name}@{result.step} has a result {result.label} of another definition: {what}. Keep both by giving this "
        f"one a name of its own (--tasks NAME=...), or replace that one: --again"
    )
