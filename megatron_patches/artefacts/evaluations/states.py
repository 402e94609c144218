"""Evaluations that are asked for, at work, or failed: `evals/.states/step-.../LABEL.json`. Torch-free.

A finished one leaves no state: its result says that it is done. Who evaluates claims the label first, by making its
file, which one of several processes can. What is there already is replaced by whoever makes a file named after it: one
process as well. No clock of another machine is read.
"""

import json
import re
import secrets
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from megatron_patches.artefacts.evaluations.processes import (
    JOB,
    here,
    is_over,
    is_process,
    jobs_in_queue,
    own_submission,
)
from megatron_patches.artefacts.evaluations.result import is_label
from megatron_patches.artefacts.folders import checkpoint_name, parse_checkpoint_name
from megatron_patches.artefacts.run_folder import EVALS, RunFolder
from megatron_patches.atomic_files import create_once, write_atomically
from megatron_patches.errors import Damaged, Missing, Refused, TrainyardError
from megatron_patches.foreign.files import is_folder, names_in, read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable, shortened

STATES = ".states"
"""folder of `evals/`"""
_ENDING = ".json"
_BYTES = 1 << 16
_MESSAGE = 2000
_TRIES, _PAUSE = 200, 0.05
"""looks, and seconds between them, while another process takes an evaluation over: it writes two small files"""
Word = Literal["pending", "running", "failed"]
_WORDS = ("pending", "running", "failed")


@dataclass(frozen=True)
class State:
    """What became of an evaluation that was asked for and has no result yet."""

    step: int
    label: str
    state: Word
    since: str = ""
    """UTC, ISO 8601, by the clock of the machine that wrote it"""
    message: str = ""
    """why it failed, in one line"""
    host: str | None = None
    """where it is at work, or was"""
    pid: int | None = None
    job: str | None = None
    """of SLURM: 1234, of a task of an array 1234_5; of a pending one the whole array"""
    judged: bool = field(default=False, compare=False)
    """failed because its process or job is no more, which said nothing: another try may go well"""
    by: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """what tells its process from every other (slurm/heartbeat.py)"""
    token: str = field(default="", compare=False)
    """drawn for each state, so that one recognises its own"""

    def describe(self) -> str:
        """Who evaluates, or is to do so: for people."""
        parts = [f"job {self.job}"] if self.job else [f"process {self.pid}"] if self.pid else []
        parts += [f"on {self.host}"] if self.host else []
        return " ".join(parts) or "an unknown process"


def states_folder(run: RunFolder, step: int) -> Path:
    """Where the states of a step's evaluations lie."""
    return run.path / EVALS / STATES / checkpoint_name(step)


def read_states(run: RunFolder) -> list[State]:
    """All of a run's, sorted by step and label. One that cannot be read counts as failed, and says so.

    A running one counts as failed where its process is gone from this machine, or SLURM says that its job is over; a
    pending one where its job is.
    """
    shelf = run.path / EVALS / STATES
    found = []
    for name in sorted(names_in(shelf)) if is_folder(shelf) else []:
        parsed = parse_checkpoint_name(name)
        if parsed is None or (parsed.content, parsed.ending) != ("full", "") or not is_folder(shelf / name):
            continue
        labels = sorted(each.removesuffix(_ENDING) for each in names_in(shelf / name) if each.endswith(_ENDING))
        found += [state for label in labels if is_label(label) and (state := _read(run, parsed.step, label))]
    return _judged(found)


def read_state(run: RunFolder, step: int, label: str) -> State | None:
    """One of them, judged in the same way; None where there is none."""
    found = _read(run, step, label)
    return None if found is None else _judged([found])[0]


def announce(run: RunFolder, step: int, label: str, job: int | None = None) -> State | None:
    """Says that a job is to make an evaluation, or, without one, that this process comes to it.

    Returns:
        What was written; None where another process is at work on it, or to do it, which keeps its state.

    Raises:
        OSError: as writing does.
    """
    former = read_state(run, step, label)
    if former is not None and (former.state == "running" or _is_anothers(former)):
        return None
    facts = here()
    if job is None:
        state = State(step, label, "pending", host=facts["host"], pid=facts["pid"], job=facts[JOB], by=facts)
    else:
        known = {key: facts[key] for key in ("user", "cluster")}
        state = State(step, label, "pending", job=str(job), by=known)
    return _put(run, state, former)


def claim(run: RunFolder, step: int, label: str, announced: str | None = None) -> "Claim | State":
    """Takes an evaluation for this process.

    Whoever claims looks at the results only then, since one may have come in the meantime.

    Args:
        announced: token of the state in which the process that started this one said that it comes to it.

    Returns:
        The state of who has it, where another process is at work on it, or another one or a job is to do it.

    Raises:
        Refused: a process of another machine was killed in the instant in which it took it over.
        OSError: as writing does.
    """
    facts = here()
    state = State(step, label, "running", host=facts["host"], pid=facts["pid"], job=facts[JOB], by=facts)
    for _ in range(_TRIES):
        former = read_state(run, step, label)
        if former is not None and former.token != announced and (former.state == "running" or _is_anothers(former)):
            return former
        if written := _put(run, state, former):
            return Claim(run, written)
        time.sleep(_PAUSE)
    door = next(states_folder(run, step).glob(f"{label}{_ENDING}.after-*"), None)
    raise Refused(
        f"another process has begun to take {label} of step {step}, and does not end; call the same again, or, where "
        f"no such process is at work, remove {printable(door or 'what it left')}"
    )


@dataclass(frozen=True)
class Claim:
    """An evaluation that this process has taken."""

    run: RunFolder
    state: State

    def release(self) -> None:
        """It is done, or given up: nothing is left of it."""
        forget(self.run, self.state)

    def fail(self, message: str) -> None:
        """It cannot be done; what people read of it."""
        fail(self.run, self.state, message)


def forget(run: RunFolder, state: State) -> None:
    """Removes a state, unless another one stands in its place."""
    found = _read(run, state.step, state.label)
    if found is not None and found.token == state.token:
        folder = states_folder(run, state.step)
        (folder / f"{state.label}{_ENDING}").unlink(missing_ok=True)
        for each in (folder, folder.parent):
            with suppress(OSError):  # others are there
                each.rmdir()


def fail(run: RunFolder, state: State, message: str) -> None:
    """Marks a state failed, unless another one stands in its place."""
    found = _read(run, state.step, state.label)
    if found is not None and found.token == state.token:
        failed = replace(
            state, state="failed", message=shortened("; ".join(message.splitlines()), _MESSAGE), since=_now()
        )
        write_atomically(_path(run, failed), _content(failed))


def _put(run: RunFolder, state: State, former: State | None) -> State | None:
    """Writes a state where there is none, or in place of the former one; None where another process was faster."""
    written = replace(state, since=_now(), token=secrets.token_hex(8))
    path = _path(run, written)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if former is None:
            return written if create_once(path, _content(written)) else None
        return _replace(run, path, written, former)
    except FileNotFoundError:  # another process has just removed the empty folder
        return None


def _replace(run: RunFolder, path: Path, written: State, former: State) -> State | None:
    """Of several processes that found the same former state, one replaces it."""
    door = path.with_name(f"{path.name}.after-{former.token}")
    if not create_once(door, _content(written)):
        with suppress(TrainyardError):
            holder = _state_of(parse_object(read_bounded(door, _BYTES), printable(door)), written.step, written.label)
            if is_over(holder.by, None, None):  # killed between two files
                door.unlink(missing_ok=True)
        return None
    try:
        found = _read(run, written.step, written.label)
        if found is None or found.token != former.token:
            return None
        write_atomically(path, _content(written))
        return written
    finally:
        door.unlink(missing_ok=True)


def _path(run: RunFolder, state: State) -> Path:
    return states_folder(run, state.step) / f"{state.label}{_ENDING}"


def _content(state: State) -> bytes:
    facts = asdict(state)
    del facts["step"], facts["label"], facts["judged"]
    return (json.dumps({"format": 1, **facts}, indent=1) + "\n").encode()


def _read(run: RunFolder, step: int, label: str) -> State | None:
    path = states_folder(run, step) / f"{label}{_ENDING}"
    try:
        return _state_of(parse_object(read_bounded(path, _BYTES), printable(path)), step, label)
    except Missing:
        return None
    except TrainyardError as error:
        return State(step, label, "failed", message=f"{error}; evaluate again, which replaces the file")


def _state_of(facts: Mapping[str, Any], step: int, label: str) -> State:
    word, by, pid = facts.get("state"), facts.get("by"), facts.get("pid")
    since, message, token = (facts.get(name) for name in ("since", "message", "token"))
    host, job = facts.get("host"), facts.get("job")
    fits = all(isinstance(each, str) for each in (since, message, token))
    fits = fits and all(each is None or isinstance(each, str) for each in (host, job))
    fits = fits and re.fullmatch("[0-9a-f]{0,32}", str(token)) is not None  # it is a part of a file's name
    if not (fits and word in _WORDS and isinstance(by, dict) and (pid is None or type(pid) is int)):
        raise Damaged(f"the file of {shortened(label)} at step {step} holds no state")
    return State(step, label, cast("Word", word), str(since), str(message), host, pid, job, by=by, token=str(token))


def _judged(states: Collection[State]) -> list[State]:
    """The same, those that ended without a word as failed."""
    asked = any(state.job and state.state != "failed" for state in states)
    queue = jobs_in_queue() if asked else None
    return [_judge(state, queue) for state in states]


def _judge(state: State, queue: Collection[str] | None) -> State:
    if state.state == "failed" or not is_over(state.by, state.job, queue):
        return state
    ended = "ended without a word" if state.state == "running" else "ended before it came to it"
    return replace(state, state="failed", message=f"{state.describe()} {ended}", judged=True)


def _is_anothers(state: State) -> bool:
    """Whether another process or job is to do it."""
    if state.state != "pending":
        return False
    return not is_process(state.by) if state.pid is not None else state.job != own_submission()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
