"""A command as a process: how long it takes, the CPU time and the memory of all its processes."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainyardError
from slurm.parent import ending_with_this_process

_EVERY = 0.02
"""seconds between two looks at the memory"""
_TOLD = 2000
"""characters of a failed command's last words"""


@dataclass(frozen=True)
class Ended:
    """A process that came to its end."""

    seconds: float
    """from its start to its exit"""
    cpu: float
    """seconds of user and system, of all processes"""
    memory: int
    """bytes, the most that was seen; 0 where it was not looked at"""
    code: int
    said: str
    """the end of what it printed"""


def run(command: Sequence[str], log: Path, limit: float, memory: bool, mapped: bool = True) -> Ended:
    """Runs a command to its end; whatever ends this process ends it too.

    Args:
        log: file for what it prints.
        limit: seconds.
        memory: look at its memory while it runs, which slows it.
        mapped: as `memory_of` has it.

    Raises:
        TrainyardError: it took longer than `limit`, and was killed.
    """
    environment = os.environ | {
        "PYTHONPATH": str(CHECKOUT), "TRAINYARD_PYTHON": sys.executable,
        "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True, preexec_fn=ending_with_this_process(),
        )  # fmt: skip
        try:
            most = _wait(process.pid, started + limit, memory, mapped)
            seconds = time.perf_counter() - started
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    said = log.read_text(encoding="utf-8", errors="replace").strip()[-_TOLD:]
    return Ended(seconds, usage.ru_utime + usage.ru_stime, most, process.returncode, said)


def _wait(process: int, deadline: float, memory: bool, mapped: bool) -> int:
    """Waits for the end; the most memory that was seen, in bytes."""
    most, handle = 0, os.pidfd_open(process)
    try:
        end = select.poll()
        end.register(handle, select.POLLIN)
        while (left := deadline - time.perf_counter()) > 0:
            if memory:
                most = max(most, memory_of(process, mapped))
            if end.poll(1000 * min(left, _EVERY if memory else left)):
                return most
    finally:
        os.close(handle)
    raise TrainyardError("it took longer than it may, and was killed; give less text, or leave this peer out")


def memory_of(process: int, mapped: bool = True) -> int:
    """Bytes of a process and its descendants: each page once, however many share it.

    The sum of their proportional set sizes, and memory without a name that is passed on through descriptors (memfd) as
    far as no process has mapped it.

    Args:
        mapped: count pages of mapped files on a disk too, such as libraries, which the kernel may drop and read again.
    """
    proportional = shared = 0
    files: dict[tuple[int, int], int] = {}
    for each in _tree(process):
        folder = Path("/proc", str(each))
        try:
            for line in (folder / "smaps_rollup").read_text().splitlines():
                name, _, size = line.partition(":")
                if name in (("Pss",) if mapped else ("Pss_Anon", "Pss_Shmem")):
                    proportional += 1024 * int(size.split()[0])
                elif name == "Pss_Shmem":
                    shared += 1024 * int(size.split()[0])
            files.update(_anonymous_files(folder / "fd"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return proportional + max(0, sum(files.values()) - shared)


def _tree(process: int) -> Iterator[int]:
    waiting = [process]
    while waiting:
        each = waiting.pop()
        yield each
        for children in Path("/proc", str(each), "task").glob("*/children"):
            try:
                waiting += map(int, children.read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue


def _anonymous_files(folder: Path) -> Iterator[tuple[tuple[int, int], int]]:
    """((device, inode), bytes) of the files without a name that a process has open."""
    for link in folder.iterdir():
        try:
            if str(link.readlink()).startswith("/memfd:"):
                facts = link.stat()
                yield (facts.st_dev, facts.st_ino), 512 * facts.st_blocks
        except FileNotFoundError:
            continue
