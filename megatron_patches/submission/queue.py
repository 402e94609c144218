"""SLURM's commands, as a submission uses them."""

import os
import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass

from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.printable import printable
from megatron_patches.submission.intent import Intent

_ANSWER_SECONDS = 60
_JOB = re.compile(r"([1-9][0-9]{0,17})(;.*)?")
PENDING = "PENDING"


class QueueUnknown(TrainyardError):
    """SLURM does not say whether a job is in its queue: nothing was submitted; the same call again is the remedy."""


@dataclass(frozen=True)
class Answer:
    """What sbatch said."""

    job: int | None
    """the job; None where it named none"""
    code: int
    """exit code"""
    said: str
    """all else that it printed, without control characters"""


def require_slurm() -> None:
    """Raises Missing where a submission cannot be made on this machine."""
    for program in ("sbatch", "squeue", "scancel"):
        if shutil.which(program) is None:
            raise Missing(f"there is no {program} in PATH; submit from a login node of the cluster")


def sbatch(intent: Intent) -> Answer:
    """Submits the intent's script; waits as long as sbatch does."""
    command = ["sbatch", "--parsable", *intent.command.options, str(intent.script), *intent.command.arguments]
    done = subprocess.run(
        command, cwd=intent.command.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    lines = done.stdout.split("\n")
    jobs = [found for line in lines if (found := _JOB.fullmatch(line.strip()))]
    said = "\n".join([*(line for line in lines if not _JOB.fullmatch(line.strip())), done.stderr]).strip()
    job = int(jobs[-1][1]) if jobs and not done.returncode else None
    return Answer(job, done.returncode, printable(said, layout=True))


def jobs_in_queue(token: str) -> dict[int, str]:
    """Jobs that were submitted with a token, each with its state; PENDING for an array with a task that is.

    The token stands in the path of the submitted script, which squeue tells for every job of the queue and for those
    that ended in the last minutes (MinJobAge); one that ended before that has left its record.

    Raises:
        QueueUnknown: squeue fails, or does not answer within 60 s.
    """
    return {job: state for job, (state, path) in _own_jobs().items() if f"/{token}/" in path}


def states_of_jobs() -> dict[int, str]:
    """The user's jobs by their ids, each with its state; the same errors."""
    return {job: state for job, (state, _) in _own_jobs().items()}


def living_jobs() -> set[str]:
    """Ids of the user's jobs that wait or run: of an array its own (1234), and those of its tasks that run (1234_5).

    Raises:
        QueueUnknown: squeue fails, or does not answer within 60 s.
    """
    lines = _ask(["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i %F"])
    return {job for line in lines for job in line.split()}


def _own_jobs() -> dict[int, tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    for line in _ask(["squeue", "--noheader", "--states=all", f"--user={os.getuid()}", "--format=%F %T %o"]):
        job, _, rest = line.strip().partition(" ")
        state, _, path = rest.partition(" ")
        if _JOB.fullmatch(job) and found.get(int(job), ("", ""))[0] != PENDING:
            found[int(job)] = state, path
    return found


def _ask(command: list[str]) -> list[str]:
    """The lines that squeue says."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise QueueUnknown(f"squeue does not answer within {_ANSWER_SECONDS} s") from None
    if done.returncode:
        said = printable(" ".join(done.stderr.split())) or "no message"
        raise QueueUnknown(f"squeue fails (exit code {done.returncode}: {said})")
    return done.stdout.split("\n")


def cancel_pending(jobs: Collection[int]) -> None:
    """Takes jobs out of the queue that have not started, and waits for SLURM's word.

    Raises:
        TrainyardError: SLURM does not do it.
    """
    if not jobs:
        return
    command = ["scancel", f"--state={PENDING}", *map(str, sorted(jobs))]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = printable(" ".join(done.stderr.split())) or "no message"
        raise TrainyardError(f"{' '.join(command)} fails (exit code {done.returncode}: {said}); try again")
