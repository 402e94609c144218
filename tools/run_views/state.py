"""The state of a run, derived from its events, its launches' folders and SLURM's queue; only deprecation is typed."""

import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.annotations import Standing
from megatron_patches.artefacts.run_folder import CONFIG, ROLLBACK, STOPPED, RunFolder
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.events.failures import first_failure
from megatron_patches.events.reading import STEPS, Event, event_files, parse_event
from megatron_patches.foreign.files import names_in, open_plain
from megatron_patches.foreign.json_text import number_of, whole_of
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted

_LAUNCH = re.compile(r"[0-9]{4,9}")
_TAIL_BYTES = 1 << 16
_QUIET_SECONDS = 900
"""a run that recorded nothing for so long, and 20 of its steps, is not running"""
_QUEUE_SECONDS = 5
_TRAIN_NOT_THE_RUN = ("--rehearse", "--eval-only")


@dataclass(frozen=True)
class RunState:
    """What a run is doing."""

    word: str
    """ready (never launched), queued, running, stopped (to be continued), finished, failed, stale or deprecated"""
    detail: str = ""
    """since when, at which step, why"""
    step: int | None = None
    """last step that was recorded"""
    tokens: int | None = None

    def __str__(self) -> str:
        return f"{self.word} ({self.detail})" if self.detail else self.word


def derive_state(
    run_folder: Path,
    standing: Standing,
    queue: dict[str, str],
    now: float | None = None,
    problems: list[str] | None = None,
) -> RunState:
    """The state of a run from its directory, which need not exist; what cannot be read is passed over.

    Args:
        queue: SLURM's state of each job by its name, as `read_queue` gives it.
        now: seconds since 1970.
        problems: gets a sentence for each thing that was passed over.
    """
    told = problems if problems is not None else []
    run = RunFolder(run_folder)
    launch = _last_launch(run.launches, told)
    events = _last_events(run.events, launch.name, told) if launch else []
    step, tokens = _progress(events)
    found = _from_events(launch, events, time.time() if now is None else now, told)
    job = queue.get(run_folder.name)
    if job in ("RUNNING", "COMPLETING"):
        found = ("running", f"step {step}" if step is not None else "starting")
    elif job is not None and found[0] != "running":
        found = ("queued", f"at step {step}" if step else "")
    if standing.deprecated:
        found = ("deprecated", standing.deprecated.text)
    return RunState(*found, step, tokens)


def read_queue() -> dict[str, str]:
    """State of each job of SLURM by its name, which is its run's; empty without SLURM, or where it does not answer.

    A job that rehearses, or validates alone, has its run's name too, and is none of the run's.
    """
    if shutil.which("squeue") is None:
        return {}
    command = ["squeue", "--noheader", "--format=%T %j %o"]  # %o is the script with its words; names have no spaces
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_QUEUE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}  # a queue that cannot be asked says nothing; the events still do
    jobs: dict[str, str] = {}
    for line in done.stdout.splitlines():
        state, _, rest = line.strip().partition(" ")
        name, _, command_line = rest.partition(" ")
        trains = not any(word.partition("=")[0] in _TRAIN_NOT_THE_RUN for word in command_line.split())
        if jobs.get(name) != "RUNNING" and trains:
            jobs[name] = state
    return jobs


def _last_launch(launches: Path, problems: list[str]) -> Path | None:
    try:
        numbers = [name for name in names_in(launches) if _LAUNCH.fullmatch(name)]
    except TrainyardError as error:
        problems.append(str(error))
        return None
    return launches / max(numbers, key=int) if numbers else None


def _from_events(launch: Path | None, events: list[Event], now: float, problems: list[str]) -> tuple[str, str]:
    if launch is None:
        return "ready", "never launched"
    last = events[-1] if events else None
    if (launch / ROLLBACK).exists():
        where = f" to step {last.facts['step']}{_of_steps(launch, problems)}" if last and last.kind == "start" else ""
        return "stopped", f"rolled back{where}"
    if last is not None and last.kind == "end":
        if last.facts["outcome"] == "finished":
            return "finished", f"step {last.facts['step']}"
        return "stopped", f"at step {last.facts['step']}{_of_steps(launch, problems)}"
    told = [{**event.facts, "kind": event.kind, "time": event.time} for event in events if event.kind == "failure"]
    if cause := first_failure(launch, told):
        return "failed", cause
    if (launch / STOPPED).exists():
        return "stopped", "saved before its end"
    return _alive_or_stale(launch, events, now)


def _of_steps(launch: Path, problems: list[str]) -> str:
    """` of 520`, where the launch's configuration says how many steps the run has."""
    path = launch / CONFIG
    if not path.exists():
        return ""
    try:
        training = read_yaml(path).get("training")
    except TrainyardError as error:
        problems.append(str(error))
        return ""
    steps = _last_step(training) if isinstance(training, dict) else None
    return f" of {steps}" if steps is not None else ""


def _last_step(training: Mapping[str, Any]) -> int | None:
    """Where a run ends whose length is in steps, extensions counted; None where it is not, or not to be read."""
    told = [training.get(key) or [] for key in ("extend_to", "extend_by")]
    extend_to, extend_by = (each if isinstance(each, list) else [None] for each in told)
    lengths = [extend_to[-1]] if extend_to else [training.get("steps"), *extend_by]
    steps = [number for each in lengths if (number := whole_of(each, STEPS)) is not None]
    in_steps = whole_of(training.get("steps"), STEPS) is not None
    return sum(steps) if in_steps and len(steps) == len(lengths) else None


def _alive_or_stale(launch: Path, events: list[Event], now: float) -> tuple[str, str]:
    told = [each.facts.get("seconds") for each in events if each.kind == "step"]
    seconds = [number for each in told if (number := number_of(each)) is not None]
    patience = max(_QUIET_SECONDS, 20 * max(seconds[-20:], default=0))
    heard = _seconds(events[-1].time) if events else launch.lstat().st_mtime  # it may be a link to nothing
    step = next((each.facts["step"] for each in reversed(events) if "step" in each.facts), None)
    at = f"step {step}" if step is not None else "starting"
    if now - heard > patience:
        return "stale", f"{at}; nothing recorded since {datetime.fromtimestamp(heard, UTC):%Y-%m-%d %H:%M} UTC"
    if heard - now > _QUIET_SECONDS:
        return "running", f"{at}; its clock is {(heard - now) / 60:.0f} minutes ahead of this machine's"
    return "running", at


def _last_events(folder: Path, launch: str, problems: list[str]) -> list[Event]:
    """The last events of a launch; its files may be long, so only their ends are read."""
    files = event_files(folder, problems, launch)
    events = [event for path in files for event in _tail(path, launch, problems)]
    return sorted(events, key=lambda event: _seconds(event.time)) if len(files) > 1 else events


def _tail(path: Path, launch: str, problems: list[str]) -> list[Event]:
    try:
        with open_plain(path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).split(b"\n")[:-1]  # what follows the last line break was torn
    except (TrainyardError, OSError) as error:
        problems.append(printable(error))
        return []
    whole = lines if size <= _TAIL_BYTES else lines[1:]
    events, bad = [], 0
    for number, line in enumerate(whole):
        try:
            place = f":{number + 1}" if size <= _TAIL_BYTES else f", line {len(whole) - number} from its end,"
            events.append(parse_event(line, launch, f"{printable(path)}{place}"))
        except Damaged as error:
            bad += 1
            if bad == 1:
                problems.append(str(error))
    if bad > 1:
        problems.append(f"{printable(path)} has {counted(bad - 1, 'more line')} near its end that are no events")
    return events


def _progress(events: list[Event]) -> tuple[int | None, int | None]:
    for event in reversed(events):
        if event.kind in ("step", "validation") or event.facts.get("rollback") is True:
            return event.facts["step"], whole_of(event.facts.get("tokens"))
    return None, None


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
