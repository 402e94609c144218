"""Checkpoints evaluated on this machine, one after the other, each in a process of its own.

A process can join process groups once, and the card of an export needs one that has not: so no process could evaluate
two checkpoints. And where one runs out of memory, the others are evaluated all the same.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from megatron_patches.artefacts.evaluations.states import State, announce, fail, forget, read_state
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from megatron_patches.evaluation.exports import remove_leftovers
from megatron_patches.foreign.printable import printable
from slurm.parent import command_ending_with_it
from tools.commands.evals.running.plan import Plan, Work
from tools.evaluation_views.charts import publish
from tools.start import INTERRUPTED
from tools.terminal import remark

_CHILD = "tools.commands.evals.running.child"
_TERMINATED = 128 + signal.SIGTERM
_END_SECONDS = 30
"""that a process has to remove its export"""


def evaluate(plan: Plan, work: Sequence[Work]) -> list[State]:
    """Makes what is missing; the failed ones, which are recorded too.

    Raises:
        TrainyardError: the run's folder cannot be written to; nothing was done.
        OSError: as writing does.
    """
    for complaint in remove_leftovers(plan.run):
        remark(complaint)
    waiting: dict[tuple[int, str], State | None] = {}
    failed: list[State] = []
    try:
        for step, label in ((each.candidate.step, label) for each in work for label in each.labels):
            waiting[step, label] = _announced(plan, step, label)
        for each in work:
            announced = {label: state for label in each.labels if (state := waiting[each.candidate.step, label])}
            failed += _evaluate_one(plan, each, {label: state.token for label, state in announced.items()})
            for label in each.labels:
                _forget(plan, waiting.pop((each.candidate.step, label)))  # where it was not even begun
            for problem in publish(plan.run):
                remark(problem)
    finally:
        for state in waiting.values():
            _forget(plan, state)
    return failed


def _announced(plan: Plan, step: int, label: str) -> State | None:
    try:
        return announce(plan.run, step, label)
    except OSError as error:
        raise TrainyardError(
            f"{printable(plan.run.path)}: what is evaluated cannot be written there ({error.strerror}); make room, or "
            "give this user the right to"
        ) from error


def _forget(plan: Plan, state: State | None) -> None:
    if state is not None:
        forget(plan.run, state)


def _evaluate_one(plan: Plan, work: Work, announced: Mapping[str, str]) -> list[State]:
    code = _run_child(plan, work, announced)
    if code in (-signal.SIGINT, INTERRUPTED):
        raise KeyboardInterrupt
    if code in (-signal.SIGTERM, _TERMINATED):
        sys.exit(_TERMINATED)
    if code == 0:
        return []
    step = work.candidate.step
    states = [state for label in work.labels if (state := read_state(plan.run, step, label)) is not None]
    failed = [state for state in states if state.state == "failed"]
    if not work.candidate.folder.exists():
        for state in failed:
            forget(plan.run, state)
        remark(f"{work.candidate.folder.name} was removed while it was evaluated")
        return []
    ended = f"the process ended by signal {-code}{' (out of memory?)' if code == -signal.SIGKILL else ''}"
    for state in failed:
        if state.judged:
            fail(plan.run, state, ended)
    for complaint in remove_leftovers(plan.run):
        remark(complaint)
    told = [state for label in work.labels if (state := read_state(plan.run, step, label)) is not None]
    return [state for state in told if state.state == "failed"] or [
        State(step, ", ".join(work.labels), "failed", message=ended if code < 0 else "what it said is above")
    ]


def _run_child(plan: Plan, work: Work, announced: Mapping[str, str]) -> int:
    """The exit code of the process that evaluates a checkpoint; it ends with this one, however this one ends."""
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    command = command_ending_with_it([sys.executable, "-P", "-m", _CHILD])
    request = {
        "run": str(plan.run.path.absolute()),
        "folder": str(work.candidate.folder.absolute()),
        "asked": asdict(plan.asked),
        "announced": dict(announced),
    }
    sys.stdout.flush()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}, text=True)
    try:
        process.communicate(json.dumps(request))
        return process.returncode
    except BaseException:
        _end(process)
        raise


def _end(process: "subprocess.Popen[str]") -> None:
    """Ctrl-C in a terminal reached it too; a signal to this process alone did not."""
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
