"""Results of runs as they lie on their shelves, read once; what cannot be read is told once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from megatron_patches.artefacts.evaluations.present import on_present_branch
from megatron_patches.artefacts.evaluations.result import TaskResult
from megatron_patches.artefacts.evaluations.shelf import Evaluation, is_sealed, list_evaluations
from megatron_patches.artefacts.evaluations.states import State, read_states
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted, first_of


@dataclass(frozen=True)
class Found:
    """A result of a run."""

    run: str
    """the run's name, or its directory where several have that name"""
    result: TaskResult
    invalid: bool = False

    @property
    def step(self) -> int:
        """Of the checkpoint."""
        return self.result.step


@dataclass(frozen=True)
class Unfinished:
    """An evaluation without a result, or one that is made again."""

    run: str
    state: State


@dataclass(frozen=True)
class Gathered:
    """What there is of some runs: in the order in which they were named, each by step and label."""

    runs: tuple[str, ...]
    found: tuple[Found, ...]
    unfinished: tuple[Unfinished, ...] = ()
    problems: tuple[str, ...] = ()
    """what could not be read"""
    notes: tuple[str, ...] = ()
    """what a reader must know to believe the rest"""

    @cached_property
    def labels(self) -> list[str]:
        """Of results and of evaluations that are still to come, sorted."""
        return sorted({each.result.label for each in self.found} | {each.state.label for each in self.unfinished})


def gather(runs: Sequence[RunFolder], invalid: bool) -> Gathered:
    """Reads the shelves of runs.

    Args:
        invalid: take results that were marked invalid, by themselves or with their checkpoint, too.

    Raises:
        Missing: no run has an evaluation, or only invalid ones that were not asked for.
    """
    names = [run.name if [each.name for each in runs].count(run.name) == 1 else str(run.path) for run in runs]
    problems: list[str] = []
    notes: list[str] = []
    found: list[Found] = []
    unfinished: list[Unfinished] = []
    for run, name in zip(runs, names, strict=True):
        marked, unsealed, before = [], [], len(found)
        evaluations = list_evaluations(run, problems)
        present = _present(run, evaluations, problems)
        for evaluation in present:
            if evaluation.is_invalid:
                marked.append(evaluation.step)
            if not is_sealed(evaluation):
                unsealed.append(evaluation.step)
            if invalid or not evaluation.is_invalid:
                found += [
                    Found(name, result, evaluation.is_invalid) for _, result in sorted(evaluation.results.items())
                ]
        states = read_states(run)
        unfinished += [Unfinished(name, state) for state in sorted(states, key=lambda each: (each.step, each.label))]
        notes += _notes_on(name, marked, unsealed, invalid, len(found) > before or bool(states))
        if left := sorted({each.step for each in evaluations} - {each.step for each in present}):
            notes.append(
                f"{name}: evaluations of {_steps(left)} are left out: a rollback or a later launch left their "
                "checkpoints behind"
            )
    if not found and not unfinished:
        raise Missing(_nothing(names, notes, problems))
    return Gathered(tuple(names), tuple(found), tuple(unfinished), tuple(dict.fromkeys(problems)), tuple(notes))


def _present(run: RunFolder, evaluations: Sequence[Evaluation], problems: list[str]) -> Sequence[Evaluation]:
    """Those on the run's present branch; all of them where that cannot be told."""
    try:
        return on_present_branch(run, evaluations)
    except TrainyardError as error:
        problems.append(f"{error}; evaluations that were left behind are shown too")
        return evaluations


def _notes_on(name: str, marked: Sequence[int], unsealed: Sequence[int], invalid: bool, any_left: bool) -> list[str]:
    notes = []
    if marked:
        done = "are marked ! and are never the best" if invalid else "are left out (--invalid shows them)"
        notes.append(f"{name}: evaluations of {_steps(marked)} are invalid, and {done}")
    if unsealed:
        notes.append(
            f"{name}: the evaluation of {_steps(unsealed)} is not sealed: its manifest does not name all results that "
            f"are there; the next result of the step seals it (tools/evals run {name})"
        )
    if not any_left:
        notes.append(f"{name}: has no evaluation to show")
    return notes


def _steps(steps: Sequence[int]) -> str:
    return f"{'step' if len(steps) == 1 else 'steps'} {first_of(steps)}"


def _nothing(names: Sequence[str], notes: Sequence[str], problems: Sequence[str]) -> str:
    told = [note for note in notes if "are invalid" in note]
    damaged = [f"{counted(len(problems), 'file')} cannot be read, first: {problems[0]}"] if problems else []
    runs = ", ".join(printable(name) for name in names)
    have = "has" if len(names) == 1 else "have"
    first = f"{runs} {have} no results of evaluations; make some: tools/evals run {printable(names[0])} --tasks TASK"
    return "\n".join([first, *told, *damaged])
