"""What `tools/evals run` is to do: which checkpoints lack which results. All that can be refused is refused here."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from megatron_patches.artefacts.evaluations.states import State, read_states
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import TrainyardError, refuse
from megatron_patches.evaluation.asked import Asked, Standing, standing_of
from megatron_patches.evaluation.selection import Candidate, Which, select
from megatron_patches.evaluation.tasks.all_tasks import Task
from megatron_patches.evaluation.tasks.extra import refuse_without
from megatron_patches.evaluation.tasks.spec import split_tasks
from megatron_patches.sizes import first_of
from tools.terminal import remark, tell


@dataclass(frozen=True)
class Work:
    """A checkpoint and what it lacks."""

    candidate: Candidate
    labels: tuple[str, ...]


class Plan:
    """What is asked of which checkpoints of a run; each look at them may find others.

    Raises:
        TrainyardError: a task cannot be asked.
    """

    def __init__(self, run: RunFolder, which: Which, asked: Asked) -> None:
        if any(spec.is_asked_by_lm_eval for spec in split_tasks(asked.tasks)):
            refuse_without("these tasks", lm_eval="lm-eval", transformers="transformers")
        self.run = run
        self.asked = asked
        self.failed_before: dict[tuple[int, str], State] = {}
        """by step and label, those that were left alone"""
        self._which = which
        self._tasks: list[Task] = asked.prepared()
        self._told: set[str] = set()

    def not_again(self) -> None:
        """From now on what has a result is passed over, also where everything was to be made again."""
        self.asked = replace(self.asked, again=False)

    def look(self) -> list[Work]:
        """What is missing now, the earliest checkpoint first; what is passed over is told, each thing once.

        Raises:
            TrainyardError: as `select` and `standing_of` say, for all checkpoints together.
        """
        selection = select(self.run, self._which)
        for problem in selection.passed_over:
            self._remark(f"passed over: {problem}")
        failed = {(each.step, each.label): each for each in read_states(self.run) if each.state == "failed"}
        there: dict[str, list[int]] = {}
        found, problems = [], []
        for candidate in selection.candidates:
            try:
                standing = standing_of(self.run, candidate, self._tasks, self.asked)
            except TrainyardError as error:
                if candidate.folder.exists():
                    problems.append(str(error))
                else:
                    self._remark(f"{candidate.folder.name} was removed meanwhile")
                continue
            for label in standing.there:
                there.setdefault(label, []).append(candidate.step)
            if standing.why:
                first = " ".join(standing.why.split()).partition(";")[0]
                self._remark(f"{self.run.name} is asked in the engine: {first}")
            labels = tuple(self._to_do(candidate, standing, failed))
            if labels:
                found.append(Work(candidate, labels))
        refuse(dict.fromkeys(problems))
        self._tell_there(there)
        self._tell_failed()
        if not selection.candidates and not selection.passed_over:
            self._tell(f"{self.run.name} has no such checkpoint yet")
        return found

    def _to_do(self, candidate: Candidate, standing: Standing, failed: dict[tuple[int, str], State]) -> Iterator[str]:
        for task in standing.missing:
            state = failed.get((candidate.step, task.label))
            if state is None or state.judged or self.asked.again:
                yield task.label
            else:
                self.failed_before[candidate.step, task.label] = state

    def _tell_failed(self) -> None:
        steps: dict[tuple[str, str], list[int]] = {}
        for (step, label), state in self.failed_before.items():
            steps.setdefault((label, state.message), []).append(step)
        for (label, message), of in steps.items():
            self._remark(
                f"passed over: {label} failed before at step {first_of(of)}: {message}; --again tries it again"
            )

    def _tell_there(self, there: dict[str, list[int]]) -> None:
        for label, steps in there.items():
            self._tell(f"{self.run.name} {label}: evaluated already at step {first_of(steps)}")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            tell(text)

    def _remark(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            remark(text, layout=True)
