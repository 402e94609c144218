"""Evaluations that are asked for, at work, or failed: `evals/.states/step-.../LABEL.json`. Torch-free.

A finished one leaves no state: its result says that it is done. Who evaluates claims the label first, by making its
file, which one of several processes can. What is there already is replaced by whoever makes a file named after it: one
process as well. No clock of another machine is read.
"""

import json
import secrets
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from os import environ
from pathlib import Path
from typing import Any, Literal, cast

from megatron_patches.artefacts.evaluations.result import is_label
from megatron_patches.artefacts.folders import checkpoint_name, parse_checkpoint_name
from megatron_patches.artefacts.run_folder import EVALS, RunFolder
from megatron_patches.atomic_files import create_once, write_atomically
from megatron_patches.errors import Damaged, Missing, TrainyardError
from megatron_patches.foreign.files import is_folder, names_in, read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.submission.queue import QueueUnknown, living_jobs
from slurm.heartbeat import started_at, this_process

STATES = ".states"
"""folder of `evals/`"""
_ENDING = ".json"
_BYTES = 1 << 16
_MESSAGE = 2000
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
    """why it failed"""
    host: str | None = None
    """where it is at work, or was"""
    pid: int | None = None
    job: str | None = None
    """of SLURM: 1234, of a task of an array 1234_5; of a pending one the whole job or array"""
    by: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """what tells its process from every other (slurm/heartbeat.py)"""
    token: str = field(default="", compare=False)
    """drawn for each state, so that one recognises its own"""

    def describe(self) -> str:
        """Who evaluates, or is to: for people."""
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


def announce(run: RunFolder, step: int, label: str, job: int) -> bool:
    """Says that a job is to make an evaluation.

    Returns:
        False where another process is at work on it, which keeps its state.

    Raises:
        OSError: as writing does.
    """
    former = read_state(run, step, label)
    if former is not None and former.state == "running":
        return False
    return _put(run, State(step, label, "pending", job=str(job), by={"user": this_process()["user"]}), former)


def claim(run: RunFolder, step: int, label: str) -> "Claim | State":
    """Takes an evaluation for this process.

    Whoever claims looks at the results only then, since one may have come in the meantime.

    Returns:
        The state of who has it, where another process is at work on it, or another job in the queue is to do it.

    Raises:
        OSError: as writing does.
    """
    while True:
        former = read_state(run, step, label)
        here = this_process()
        if former is not None and (former.state == "running" or _is_anothers(former, here)):
            return former
        state = State(step, label, "running", host=here["host"], pid=here["pid"], job=_own_job(here), by=here)
        if written := _put_state(run, state, former):
            return Claim(run, written)


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
        failed = replace(state, state="failed", message=shortened(message, _MESSAGE), since=_now())
        write_atomically(_path(run, failed), _content(failed))


def _put(run: RunFolder, state: State, former: State | None) -> bool:
    return _put_state(run, state, former) is not None


def _put_state(run: RunFolder, state: State, former: State | None) -> State | None:
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
            if _is_gone(holder, None):  # killed between two files
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
    del facts["step"], facts["label"]
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
    word, by = facts.get("state"), facts.get("by")
    texts = {name: facts.get(name) for name in ("since", "message", "token")}
    host, pid, job = facts.get("host"), facts.get("pid"), facts.get("job")
    fits = word in _WORDS and isinstance(by, dict) and all(isinstance(each, str) for each in texts.values())
    fits = fits and all(each is None or isinstance(each, str) for each in (host, job))
    if not fits or not (pid is None or type(pid) is int):
        raise Damaged(f"{shortened(label)} of step {step} has a state that is none")
    return State(step, label, cast("Word", word), host=host, pid=pid, job=job, by=cast("dict[str, Any]", by), **texts)


def _judged(states: Collection[State]) -> list[State]:
    """The same, those that ended without a word as failed."""
    jobs = _jobs() if any(state.job and state.state != "failed" for state in states) else None
    return [_judge(state, jobs) for state in states]


def _judge(state: State, jobs: Collection[str] | None) -> State:
    if state.state == "failed" or not _is_gone(state, jobs):
        return state
    if state.state == "pending":
        return replace(state, state="failed", message=f"{state.describe()} is over and has not evaluated it")
    return replace(state, state="failed", message=f"{state.describe()} ended without a word")


def _is_gone(state: State, jobs: Collection[str] | None) -> bool:
    """Whether it is certain that its process, or its job, is no more."""
    here = this_process()

    def same(*keys: str) -> bool:
        return all(state.by.get(key) == here[key] for key in keys)

    if state.state == "running":
        if same("host", "boot", "pids") and None not in (here["boot"], here["pids"]):
            return type(state.pid) is int and started_at(state.pid) != state.by.get("started")
        restarts = state.by.get("restarts")
        if state.job is not None and state.job == _own_job(here) and type(restarts) is int:
            return restarts < here["restarts"]  # SLURM started the same job once more
    # squeue tells the jobs of the user who asks; another cluster's may lie on the same disks
    other_cluster = None not in (state.by.get("cluster"), here["cluster"]) and not same("cluster")
    return jobs is not None and state.job is not None and same("user") and not other_cluster and state.job not in jobs


def _jobs() -> set[str] | None:
    """Those in SLURM's queue; None where that is not known."""
    if shutil.which("squeue") is None:
        return None
    try:
        return living_jobs()
    except QueueUnknown:
        return None


def _is_anothers(state: State, here: Mapping[str, Any]) -> bool:
    own = environ.get("SLURM_ARRAY_JOB_ID") or here["job"]
    return state.state == "pending" and state.job != (None if own is None else str(own))


def _own_job(here: Mapping[str, Any]) -> str | None:
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return None if here["job"] is None else str(here["job"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
