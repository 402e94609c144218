"""One checkpoint evaluated, in a process of its own: what is missing is claimed, asked, and put on the shelf.

Tasks of an export come first: the card that proves it must find no process groups, which the engine joins. Each result
is on the shelf as soon as it is there, so that whoever kills this loses one task. Torch-free until the first is asked.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from megatron_patches.artefacts.evaluations.result import TaskResult
from megatron_patches.artefacts.evaluations.shelf import checkpoints_of, evaluation_folder, read_evaluation, shelve
from megatron_patches.artefacts.evaluations.states import Claim, claim
from megatron_patches.artefacts.run_folder import CONFIG, RunFolder
from megatron_patches.errors import TrainingFailed, TrainyardError
from megatron_patches.evaluation.asked import Asked, standing_of
from megatron_patches.evaluation.exports import export_of
from megatron_patches.evaluation.selection import Candidate
from megatron_patches.evaluation.tasks.all_tasks import Task
from megatron_patches.evaluation.tasks.outcome import EvaluatedCheckpoint, Outcome
from megatron_patches.evaluation.tasks.task import HarnessTask
from megatron_patches.foreign.credentials import told
from megatron_patches.foreign.files import is_folder
from megatron_patches.run.reading import load_resolved

Ask = Callable[[Task], Outcome]
Opened = Callable[[Sequence[Task]], AbstractContextManager[Ask]]


class OneCheckpoint:
    """A checkpoint, and what is asked of it.

    Args:
        tell: hears each result.
        hear: hears what is being done, and what goes wrong.
        announced: tokens of states, by label, in which the process that started this one said that it comes to them.
    """

    def __init__(
        self,
        run: RunFolder,
        candidate: Candidate,
        asked: Asked,
        tell: Callable[[TaskResult], None],
        hear: Callable[[str], None],
        announced: Mapping[str, str] | None = None,
    ) -> None:
        self._run = run
        self._candidate = candidate
        self._asked = asked
        self._tell = tell
        self._hear = hear
        self._announced = announced or {}
        self._config = load_resolved(candidate.folder / CONFIG)
        self._claims: dict[str, Claim] = {}
        self._failed = False

    def evaluate(self) -> bool:
        """Makes what is missing; what fails is recorded, and the rest is made all the same.

        Returns:
            Whether nothing failed.

        Raises:
            TrainyardError: what is asked cannot be asked of this checkpoint; nothing was done.
        """
        standing = standing_of(self._run, self._candidate, self._asked.prepared(), self._asked)
        try:
            mine = [task for task in standing.missing if self._take(task)]
            mine = [task for task in mine if self._can_be_asked(task)]
            harness = [task for task in mine if isinstance(task, HarnessTask)]
            through_export = harness if standing.way == "export" else []
            in_engine = [task for task in mine if task not in through_export]
            for tasks, opened in ((through_export, self._export), (in_engine, self._engine)):
                if tasks:
                    self._make(tasks, opened)
        finally:
            for each in self._claims.values():  # only of what was cut: nothing is left of it
                each.release()
        return not self._failed

    def _take(self, task: Task) -> bool:
        """Claims a task, unless another process is at work on it, or has done it meanwhile."""
        found = claim(self._run, self._candidate.step, task.label, self._announced.get(task.label))
        if not isinstance(found, Claim):
            doing = "is at work on it" if found.state == "running" else "is to do it"
            self._hear(f"{task.label}: {found.describe()} {doing}")
            return False
        if not self._asked.again and self._is_there(task):
            found.release()
            return False
        self._claims[task.label] = found
        return True

    def _can_be_asked(self, task: Task) -> bool:
        """Whether the items of a task of the harness's own are to be had: to export the model for it takes longer."""
        if isinstance(task, HarnessTask) and isinstance(task.config, str):
            from megatron_patches.evaluation.harness.ask import look_for_items

            with self._recorded(task):
                look_for_items(task, self._hear)
        return task.label in self._claims

    def _is_there(self, task: Task) -> bool:
        folder = evaluation_folder(self._run, self._candidate.step)
        if not is_folder(folder):
            return False
        evaluation = read_evaluation(folder, [])
        return task.label in evaluation.results and bool(checkpoints_of(evaluation) & set(self._candidate.ids))

    def _make(self, tasks: Sequence[Task], opened: Opened) -> None:
        """Asks tasks, one by one; where the model cannot be had, all of them have failed."""
        try:
            with opened(tasks) as ask:
                for task in tasks:
                    with self._recorded(task):
                        self._keep(ask(task))
        except Exception as error:  # noqa: BLE001  recorded and told: other checkpoints are evaluated all the same
            self._fail(tasks, error)

    @contextmanager
    def _recorded(self, task: Task) -> Iterator[None]:
        try:
            yield
        except TrainingFailed:  # a process that holds a part of the model is gone: so are the other tasks
            raise
        except Exception as error:  # noqa: BLE001  the same for other tasks
            self._fail([task], error)

    def _fail(self, tasks: Sequence[Task], error: Exception) -> None:
        """Records why those of the tasks that have no result yet failed."""
        message = told(error)
        if not isinstance(error, (TrainyardError, OSError, TrainingFailed)):
            message = f"{type(error).__name__}: {message}"
            traceback.print_exception(error)
        labels = [task.label for task in tasks if task.label in self._claims]
        if labels:
            self._failed = True
            self._hear(f"error: {', '.join(labels)}: {message}")
        for label in labels:
            self._claims.pop(label).fail(message)

    def _keep(self, outcome: Outcome) -> None:
        manifest = self._candidate.manifest
        of = EvaluatedCheckpoint(self._run.name, self._candidate.step, self._candidate.tokens, manifest.id)
        result = outcome.result(of)
        shelve(self._run, result, outcome.items, self._candidate.ids)
        self._claims.pop(result.label).release()
        self._tell(result)

    @contextmanager
    def _export(self, tasks: Sequence[Task]) -> Iterator[Ask]:
        from megatron_patches.evaluation.harness.ask import ask
        from megatron_patches.evaluation.harness.model_on_export import load_export

        with export_of(self._run, self._candidate, self._config, self._asked.keep_exports, self._hear) as folder:
            model = load_export(folder, self._asked.length, self._asked.batch_size)

            def answered(task: Task) -> Outcome:
                assert isinstance(task, HarnessTask)
                return next(ask(model, [task], "export", self._asked.batch_size, self._hear))

            yield answered

    @contextmanager
    def _engine(self, tasks: Sequence[Task]) -> Iterator[Ask]:
        from megatron_patches.evaluation.in_engine import engine

        with engine(self._candidate.folder, self._asked, tasks, self._hear) as answered:
            yield answered
