"""Processes and jobs that said that they are at work: which of them are certainly no more. Torch-free.

No clock of another machine is read: a process of this machine is told by its number and its time of start, and of what
runs elsewhere SLURM alone knows.
"""

import shutil
from collections.abc import Collection, Mapping
from os import environ
from typing import Any

from megatron_patches.submission.queue import QueueUnknown, living_jobs
from slurm.heartbeat import started_at, this_process

JOB = "slurm"
"""key of a process's facts: its job, 1234, or of a task of an array 1234_5; None outside of one"""


def here() -> dict[str, Any]:
    """What tells this process from every other."""
    return {**this_process(), JOB: _own_job()}


def own_submission() -> str | None:
    """The job that this process is part of, of an array the whole of it; None outside of one."""
    return environ.get("SLURM_ARRAY_JOB_ID") or environ.get("SLURM_JOB_ID") or None


def _own_job() -> str | None:
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID") or None


def jobs_in_queue() -> set[str] | None:
    """Those of the user's that wait or run, as SLURM says; None where that is not known."""
    if shutil.which("squeue") is None:
        return None
    try:
        return living_jobs()
    except QueueUnknown:
        return None


def is_process(facts: Mapping[str, Any]) -> bool:
    """Whether these are facts of this very process."""
    now = here()
    return all(facts.get(key) == now[key] for key in ("host", "boot", "pids", "pid", "started"))


def is_over(facts: Mapping[str, Any], job: str | None, queue: Collection[str] | None) -> bool:
    """Whether it is certain that a process is no more, or, where the facts name none, that a job is.

    Args:
        facts: what `here` gave to the process that wrote them.
        job: of the process, or the job meant.
        queue: what `jobs_in_queue` says.
    """
    now = here()

    def same(*keys: str) -> bool:
        return all(facts.get(key) == now[key] for key in keys)

    pid, restarts = facts.get("pid"), facts.get("restarts")
    if type(pid) is int:
        if same("host", "boot", "pids") and None not in (now["boot"], now["pids"]):
            return started_at(pid) != facts.get("started")
        if job is not None and job == now[JOB] and type(restarts) is int:
            return bool(restarts < now["restarts"])  # SLURM started the same job once more
    # squeue tells the jobs of the user who asks; another cluster's may lie on the same disks
    other_cluster = None not in (facts.get("cluster"), now["cluster"]) and not same("cluster")
    return queue is not None and job is not None and same("user") and not other_cluster and job not in queue
