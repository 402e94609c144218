"""The SLURM job that this process is part of, as variables and commands tell, and where a launch's processes meet.

Each thing that is missing or no number is one error with its remedy. `slurm/launch` reads it on a login node's Python:
standard library only, and nothing newer than Python 3.6.
"""
# ruff: noqa: UP006, UP035, UP045

import errno
import os
import shutil
import socket
import subprocess
from typing import List, Optional

NO_JOB = (
    "SLURM_JOB_ID is set here, so SLURM is to start the run: submit with sbatch, or work in an salloc shell; to start "
    "the run on this machine, without SLURM: env -u SLURM_JOB_ID COMMAND"
)
PORTS_TRIED = 100
ANSWER_SECONDS = 2.0

JOB_LOG = "logs/%x-%j.log"
"""`#SBATCH --output` of a job, from the checkout's root: its name and number"""
ARRAY_LOG = "logs/%x-%A_%a.log"
"""the same of a task of an array"""


class JobError(Exception):
    """The job cannot be used as it is. The message says why, and what to do about it."""


class Job:
    """What a launch needs to know of its job."""

    def __init__(self, identity: int, nodes: int, gpus_per_node: Optional[int], hosts: List[str]) -> None:
        self.identity = identity
        self.nodes = nodes
        self.gpus_per_node = gpus_per_node
        self.hosts = hosts


def current_job() -> Optional[Job]:
    """The job; None outside of one.

    Raises:
        JobError: only a part of what SLURM sets in a job is here, or its commands are missing or fail.
    """
    return require_job() if "SLURM_JOB_ID" in os.environ else None


def require_job() -> Job:
    """The same, where there must be one."""
    identity = number("SLURM_JOB_ID", 0)
    nodes = number(_first_set("SLURM_NNODES", "SLURM_JOB_NUM_NODES"), 1)
    gpus = number("SLURM_GPUS_ON_NODE", 0) if os.environ.get("SLURM_GPUS_ON_NODE") else None
    hosts = _host_names(os.environ[_first_set("SLURM_JOB_NODELIST", "SLURM_NODELIST")])
    if len(hosts) < nodes:
        raise JobError(
            "SLURM gave the job {} nodes, and its list of hosts has {} ({}). {}".format(
                nodes, len(hosts), " ".join(hosts), NO_JOB
            )
        )
    if shutil.which("srun") is None:
        raise JobError("there is no `srun` in PATH, which starts a run on a job's nodes. " + NO_JOB)
    return Job(identity, nodes, gpus or None, hosts)


def number(name: str, least: int) -> int:
    """The whole number that a variable holds.

    Raises:
        JobError: it is not set, no whole number, or less than `least`.
    """
    text = os.environ.get(name)
    if text is None:
        raise JobError(f"{name} is not set, as SLURM does in a job. {NO_JOB}")
    if not (text.isdecimal() and int(text) >= least):
        raise JobError(f"{name}={text!r} is not a whole number from {least}, as SLURM sets it. {NO_JOB}")
    return int(text)


def _first_set(*names: str) -> str:
    """The name of a variable that is set, of two that SLURM sets alike."""
    for name in names:
        if os.environ.get(name):
            return name
    raise JobError(f"{names[0]} is not set, as SLURM does in a job. {NO_JOB}")


def _host_names(node_list: str) -> List[str]:
    if shutil.which("scontrol") is None:
        raise JobError("there is no `scontrol` in PATH, which tells the names of a job's hosts. " + NO_JOB)
    asked = subprocess.Popen(
        ["scontrol", "show", "hostnames", node_list],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    names, complaint = (told.decode("utf-8", "replace") for told in asked.communicate())
    if asked.returncode or not names.split():
        raise JobError(
            "`scontrol show hostnames {}` told no hosts (exit code {}: {}). {}".format(
                node_list, asked.returncode, " ".join(complaint.split()) or "no message", NO_JOB
            )
        )
    return names.split()


def meeting_port(host: str, usual: int, why: str) -> int:
    """The port on which a launch's processes meet: TRAINYARD_PORT, else the first free one from `usual` on.

    Args:
        host: name or address of the host that opens it; seen from another one only what answers there is taken.
        why: how the usual one comes about, for the error.

    Raises:
        JobError: TRAINYARD_PORT is no port, or it is taken, or many others are.
    """
    if os.environ.get("TRAINYARD_PORT"):
        return _named_port(host)
    for port in range(usual, usual + PORTS_TRIED):
        if not is_taken(host, port):
            return port
    raise JobError(
        f"ports {usual} to {usual + PORTS_TRIED - 1} on {host} are taken ({why}); export TRAINYARD_PORT=NUMBER names "
        "another one"
    )


def _named_port(host: str) -> int:
    text = os.environ["TRAINYARD_PORT"]
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise JobError(f"TRAINYARD_PORT={text!r} is not a port: a number from 1 to 65535, or leave it unset")
    if _is_here(host) and _bind_error(socket.AF_INET, int(text)) == errno.EACCES:
        raise JobError(f"TRAINYARD_PORT={text} is a port that only root may open; choose one from 1024 on")
    if is_taken(host, int(text)):
        raise JobError(
            f"port {text} on {host} is taken by another process, and TRAINYARD_PORT chose it; name another one, or "
            "leave it unset: then a free one is looked for"
        )
    return int(text)


def free_local_port() -> int:
    """A port for processes of this machine that meet at 127.0.0.1: TRAINYARD_PORT, else any.

    Raises:
        JobError: TRAINYARD_PORT cannot be had, or nothing reaches 127.0.0.1.
    """
    require_loopback()
    if os.environ.get("TRAINYARD_PORT"):
        return _named_port("127.0.0.1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_loopback() -> None:
    """Raises JobError where a connection to 127.0.0.1 does not come about: processes would wait for each other."""
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            socket.create_connection(listener.getsockname(), timeout=ANSWER_SECONDS).close()
        except OSError as error:
            raise JobError(
                "the processes of a launch meet at 127.0.0.1, and no connection to it comes about "
                f"({error.strerror or error}): the loopback interface is down or closed; bring it up (as root: ip link "
                "set lo up)"
            ) from None


def is_taken(host: str, port: int) -> bool:
    """Whether another process has the port."""
    try:
        socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
        return True
    except OSError:  # nobody answers
        return _is_here(host) and any(
            _bind_error(family, port) == errno.EADDRINUSE for family in (socket.AF_INET, socket.AF_INET6)
        )


def _is_here(host: str) -> bool:
    try:
        with socket.socket() as probe:
            probe.bind((host, 0))
        return True
    except OSError:
        return False


def _bind_error(family: int, port: int) -> Optional[int]:
    """Why a port of this machine cannot be opened; None where it can."""
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as rank 0 opens it
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(("", port))
        return None
    except OSError as error:  # among others: the machine has no such family
        return error.errno
