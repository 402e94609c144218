"""Who owns a run: the newest of its launches, as long as it lives. Torch-free.

Launches are numbered folders, and a number is claimed by a rename onto a name that must be free. So of any number of
claims at once one succeeds, on network file systems too, without a lock. Whoever wants the next number looks first
whether the launch that has the newest one lives: a launch that is at work is never taken over. No clock of another
machine is read: a launch lives while its heartbeat changes between two looks of one process.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.branch import BEGAN
from megatron_patches.artefacts.descent import number_of_launch
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.atomic_files import fsync_folder, temporary_path, write_atomically
from megatron_patches.errors import Refused, TrainyardError
from megatron_patches.events.reading import event_files, parse_event
from megatron_patches.foreign.files import names_in, open_plain, read_bounded
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable
from megatron_patches.sizes import counted
from slurm import heartbeat
from slurm.heartbeat import ENDED, HEARTBEAT, beat_text, started_at, this_process

OWNER = "owner.json"
"""file in a launch's folder: who claimed it"""
TIMEOUT = "TRAINYARD_OWNER_TIMEOUT"
"""variable: seconds without a heartbeat after which a launch counts as dead"""
USUAL_TIMEOUT = 30.0
_LOOK_EVERY = 0.5
_ASK_EVERY = 10.0
"""seconds between questions to SLURM, whose controller answers everybody"""
_BYTES = 1 << 16
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True)
class Owner:
    """What `owner.json` says; an empty record where it cannot be read, which then proves nothing."""

    facts: Mapping[str, Any]

    @property
    def token(self) -> object:
        """Drawn for each claim, so that one recognises its own."""
        return self.facts.get("token")

    def describe(self) -> str:
        """Job, host and process for people."""
        job, host, pid = (self.facts.get(key) for key in ("job", "host", "pid"))
        parts = [f"job {job}"] if job is not None else []
        parts += [f"process {pid}"] if job is None and pid is not None else []
        parts += [f"on {printable(host)}"] if host is not None else []
        return " ".join(parts) or "started by an unknown process"

    def is_gone(self) -> bool:
        """Whether it is certain, by this machine alone, that the process that launched it is no more."""
        here = this_process()
        if self._same(here, "job", "cluster") and self.facts.get("job") is not None:
            restarts = self.facts.get("restarts")
            if type(restarts) is int and restarts < here["restarts"]:
                return True  # SLURM started the same job once more: its former processes are over
        if self._same(here, "host", "boot", "pids") and None not in (here["boot"], here["pids"]):
            pid, started = self.facts.get("pid"), self.facts.get("started")
            return type(pid) is int and type(started) is int and started_at(pid) != started
        return False

    def has_lost_its_job(self) -> bool:
        """Whether SLURM says for certain that the job of a launch is over; asked from a job of the same cluster."""
        here = this_process()
        # SLURM may be set up to show nobody the jobs of others, which would then look like over ones
        if not self._same(here, "cluster", "user") or here["job"] is None or self._same(here, "job"):
            return False
        return _is_over(self.facts.get("job"))

    def _same(self, here: Mapping[str, Any], *keys: str) -> bool:
        return all(self.facts.get(key) == here[key] for key in keys)


def _is_over(job: object) -> bool:
    """Whether SLURM says for certain that a job is over; a queue that does not answer says nothing."""
    if type(job) is not int or shutil.which("squeue") is None:
        return False
    try:
        asked = subprocess.run(
            ["squeue", "--noheader", f"--jobs={job}", "--format=%T"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    if asked.returncode:
        return "Invalid job id" in asked.stderr
    return not asked.stdout.strip()


def newest_launch(run: RunFolder) -> Path | None:
    """The folder of the newest launch; None where there is none. A listing of a network file system may be stale."""
    names = names_in(run.launches) if run.launches.is_dir() else []
    number = max((number_of_launch(name) for name in names), default=0)
    while _exists(run, number + 1):
        number += 1
    return run.launches / f"{number:04d}" if number else None


def later_launches(launch_directory: Path) -> list[Path]:
    """The launches of a run that were claimed after this one."""
    run = RunFolder(launch_directory.parents[1])
    number, found = number_of_launch(launch_directory.name) + 1, []
    while number > 1 and _exists(run, number):
        found.append(run.launches / f"{number:04d}")
        number += 1
    return found


def has_begun(launch_directory: Path) -> bool:
    """Whether a launch, or a rollback, has decided from where the run goes on."""
    return (launch_directory / BEGAN).exists()


def _exists(run: RunFolder, number: int) -> bool:
    """Asked of an opened folder: to open it makes a network file system look whether it knows it still."""
    try:
        descriptor = os.open(run.launches, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        os.stat(f"{number:04d}", dir_fd=descriptor)
    except FileNotFoundError:
        return False
    finally:
        os.close(descriptor)
    return True


@dataclass(frozen=True)
class Former:
    """A launch that was found over, or dead."""

    launch: Path
    beat: bytes | None
    """its heartbeat then: one that goes on since lives after all"""


def refuse_living_owner(run: RunFolder, tell: Callable[[str], None] | None = None) -> Former | None:
    """The newest launch, which does not live; None where there is none yet. `tell` hears where it takes a while.

    Raises:
        Refused: the newest launch is at work.
        TrainyardError: TRAINYARD_OWNER_TIMEOUT is no number of seconds, or the folder of launches cannot be read.
    """
    newest = newest_launch(run)
    return None if newest is None else _refuse_living(newest, tell or _say)


def _refuse_living(launch: Path, tell: Callable[[str], None]) -> Former:
    timeout, owner = owner_timeout(), read_owner(launch)
    before, began, told, asked = _beat_of(launch), time.monotonic(), False, -_ASK_EVERY
    while not (_is_surely_over(launch) or owner.is_gone()) and (waited := time.monotonic() - began) < timeout:
        if waited - asked >= _ASK_EVERY:
            asked = waited
            if owner.has_lost_its_job():
                break
        time.sleep(min(_LOOK_EVERY, timeout / 4))
        if (beat := _beat_of(launch)) != before:
            raise Refused(_at_work(launch, owner, beat))
        if not told and waited > 5:
            told = True
            tell(
                f"launch {launch.name} ({owner.describe()}) has not ended and shows no sign of life; it is taken over "
                f"if that stays so for {timeout:g} s"
            )
    return Former(launch, before)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _is_surely_over(launch: Path) -> bool:
    """It said so, or is of an earlier version, which left neither owner nor heartbeat."""
    return (launch / ENDED).exists() or not ((launch / OWNER).exists() or (launch / HEARTBEAT).exists())


def owner_timeout() -> float:
    """Seconds without a heartbeat after which a launch counts as dead.

    Raises:
        TrainyardError: it is no number, or a launch that is at work lets as much time pass between two beats.
    """
    text = os.environ.get(TIMEOUT)
    if not text:
        return USUAL_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    least = heartbeat.SECONDS_BETWEEN_BEATS
    if not least < seconds < 86400:
        raise TrainyardError(
            f"{TIMEOUT}={text!r} is no number of seconds above {least:g}, the time between two heartbeats of a launch "
            "that is at work; correct it, or unset it (30)"
        )
    return seconds


def read_owner(launch: Path) -> Owner:
    """Who claimed a launch; an empty record where the file is missing or damaged."""
    try:
        return Owner(parse_object(read_bounded(launch / OWNER, _BYTES), printable(launch / OWNER)))
    except TrainyardError:
        return Owner({})


def _beat_of(launch: Path) -> bytes | None:
    try:
        return read_bounded(launch / HEARTBEAT, _BYTES)
    except TrainyardError:
        return None


def _at_work(launch: Path, owner: Owner, beat: bytes | None) -> str:
    run, job = launch.parents[1], owner.facts.get("job")
    stop = f"scancel --signal=USR1 --batch {job}" if job is not None else f"touch {launch / 'stop-requested'}"
    return (
        f"launch {launch.name} of {run.name} is at work ({owner.describe()}, {_newest_step(run, launch.name, beat)}, "
        f"its heartbeat seen just now): a run has one launch at a time. Wait for its end, or stop it ({stop}): it "
        "saves itself, and the same command then goes on from there"
    )


def _newest_step(run: Path, launch: str, beat: bytes | None) -> str:
    """How far a launch has come, by the last lines of its events, and how long ago, by its own clock alone."""
    for path in event_files(RunFolder(run).events, [], launch):
        if not path.name.endswith("-trainer.jsonl"):
            continue
        try:
            with open_plain(path) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = file.read(_TAIL_BYTES).splitlines()
        except (TrainyardError, OSError):
            continue
        for line in reversed(lines):
            if line.startswith((b'{"kind": "step"', b'{"kind": "start"')):
                try:
                    event = parse_event(line, launch, printable(path))
                except TrainyardError:
                    continue
                return f"at step {event.facts['step']}{_age(event.time, beat)}"
    return "before its first step"


def _age(time_of_step: str, beat: bytes | None) -> str:
    """How long a step had been over at the time of a heartbeat; empty where that does not say its time."""
    try:
        now = datetime.fromisoformat((beat or b"").split()[1].decode())
        seconds = (now - datetime.fromisoformat(time_of_step)).total_seconds()
    except (IndexError, ValueError, TypeError, OverflowError):  # what is there was damaged by hand, or has no zone
        return ""
    return f" {counted(max(0, round(seconds)), 'second')} ago"


def claim_launch(
    run: RunFolder, files: Mapping[str, bytes], owner: Mapping[str, Any] | None = None, former: Former | None = None
) -> Path:
    """Make the next launch's folder, with these files in it; it appears by one rename, whole.

    Args:
        owner: `this_process()` of whoever keeps the heartbeat; None for a launch that is over as soon as it is there,
            such as a rollback.
        former: what `refuse_living_owner` found a moment ago; it is not waited for a second time.

    Raises:
        Refused: a launch of the run is at work.
        OSError: the folder cannot be written to.
    """
    run.launches.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(16)
    folder = temporary_path(run.launches / "launch")
    folder.mkdir()
    try:
        for name, content in files.items():
            write_atomically(folder / name, content)
        claimed = {"token": token, "time": datetime.now(UTC).isoformat(timespec="seconds"), **(owner or this_process())}
        write_atomically(folder / OWNER, (json.dumps(claimed) + "\n").encode())
        if owner is None:
            write_atomically(folder / ENDED, b'{"code": 0}\n')
        else:
            write_atomically(folder / HEARTBEAT, beat_text(0))
        while not (target := _claim_next(run, folder, token, former)):
            pass
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    fsync_folder(run.launches)
    return target


def _claim_next(run: RunFolder, folder: Path, token: str, former: Former | None) -> Path | None:
    """The claimed folder; None where another launch was quicker, which is then looked at in its turn."""
    newest = newest_launch(run)
    if newest is not None and (former is None or former != Former(newest, _beat_of(newest))):
        _refuse_living(newest, _say)
    target = run.launches / f"{number_of_launch(newest.name) + 1 if newest else 1:04d}"
    try:
        # onto a folder with files in it a rename fails, on every file system: so of several claims one succeeds
        folder.rename(target)
    except OSError:
        if read_owner(target).token == token:  # an answer got lost on its way, and the request was sent a second time
            return target
        if target.exists():
            return None
        raise
    return target
