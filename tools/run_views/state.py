"""The state of a run, derived from its events, its launches' folders and SLURM's queue; only deprecation is typed."""

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.annotations import Standing
from megatron_patches.artefacts.run_folder import STOPPED, RunFolder
from megatron_patches.run.failures import first_failure

_TAIL_BYTES = 1 << 16
_QUIET_SECONDS = 900
"""a run that recorded nothing for so long, and 20 of its steps, is not running"""
_QUEUE_SECONDS = 5


@dataclass(frozen=True)
class RunState:
    """What a run is doing."""

    word: str
    """ready, queued, running, finished, failed, stale or deprecated"""
    detail: str = ""
    """since when, at which step, why"""
    step: int | None = None
    """last step that was recorded"""
    tokens: int | None = None

    def __str__(self) -> str:
        return f"{self.word} ({self.detail})" if self.detail else self.word


def derive_state(run_folder: Path, standing: Standing, queue: dict[str, str], now: float | None = None) -> RunState:
    """The state of a run from its directory, which need not exist.

    Args:
        queue: SLURM's state of each job by its name, as `read_queue` gives it.
        now: seconds since 1970.
    """
    launches = sorted(RunFolder(run_folder).launches.glob("[0-9]*"), key=lambda path: (len(path.name), path.name))
    events = _last_events(RunFolder(run_folder).events, launches[-1].name if launches else None)
    step, tokens = _progress(events)
    found = _from_events(launches[-1] if launches else None, events, time.time() if now is None else now)
    job = queue.get(run_folder.name)
    if job in ("RUNNING", "COMPLETING"):
        found = ("running", f"step {step}" if step is not None else "starting")
    elif job is not None and found[0] != "running":
        found = ("queued", f"at step {step}" if step else "")
    if standing.deprecated:
        found = ("deprecated", standing.deprecated.text)
    return RunState(*found, step, tokens)


def read_queue() -> dict[str, str]:
    """State of each job of SLURM by its name, which is its run's; empty without SLURM, or where it does not answer."""
    if shutil.which("squeue") is None:
        return {}
    command = ["squeue", "--noheader", "--format=%j %T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_QUEUE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}  # a queue that cannot be asked says nothing; the events still do
    jobs: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, state = line.strip().rpartition(" ")
        if jobs.get(name) != "RUNNING":
            jobs[name] = state
    return jobs


def _from_events(launch: Path | None, events: list[dict[str, Any]], now: float) -> tuple[str, str]:
    if launch is None:
        return "ready", "never launched"
    last = events[-1] if events else {}
    if last.get("kind") == "end":
        if last.get("outcome") == "finished":
            return "finished", f"step {last['step']}"
        return "ready", f"stopped at step {last['step']}, to be continued"
    if cause := first_failure(launch, events):
        return "failed", cause
    if (launch / STOPPED).exists():
        return "ready", "stopped, to be continued"
    return _alive_or_stale(launch, events, now)


def _alive_or_stale(launch: Path, events: list[dict[str, Any]], now: float) -> tuple[str, str]:
    seconds = [each["seconds"] for each in events if each.get("kind") == "step" and "seconds" in each]
    patience = max(_QUIET_SECONDS, 20 * max(seconds[-20:], default=0))
    heard = _seconds(events[-1]["time"]) if events else launch.stat().st_mtime
    step = next((each["step"] for each in reversed(events) if "step" in each), None)
    at = f"step {step}" if step is not None else "starting"
    if now - heard > patience:
        return "stale", f"{at}; nothing recorded since {datetime.fromtimestamp(heard, UTC):%Y-%m-%d %H:%M} UTC"
    if heard - now > _QUIET_SECONDS:
        return "running", f"{at}; its clock is {(heard - now) / 60:.0f} minutes ahead of this machine's"
    return "running", at


def _last_events(folder: Path, launch: str | None) -> list[dict[str, Any]]:
    """The last events of a launch that rank 0 wrote; its file may be long, so only its end is read."""
    if launch is None:
        return []
    files = sorted(folder.glob(f"{launch}-*.jsonl"))
    events = [event for path in files for event in _tail(path)]
    return sorted(events, key=lambda event: str(event.get("time", ""))) if len(files) > 1 else events


def _tail(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]  # what follows the last line break was torn
    whole = lines if size <= _TAIL_BYTES else lines[1:]
    events = []
    for line in whole:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # damage in the middle: reading the run's events says so, a glance at its state does not stop
        if isinstance(event, dict) and "kind" in event and "time" in event:
            events.append(event)
    return events


def _progress(events: list[dict[str, Any]]) -> tuple[int | None, int | None]:
    for event in reversed(events):
        if event["kind"] in ("step", "validation") and isinstance(event.get("step"), int):
            return event["step"], event.get("tokens")
    return None, None


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
