"""Launches whose launcher or node process is killed, and what is left of them afterwards.

The launcher and the node are the real ones; the ranks stand in: they ignore SIGTERM, as one does that hangs in a
collective, and each has a child of its own, as the sampler of GPUs has.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from megatron_patches.checkout import CHECKOUT
from tests.slurm.checkout import RUN, SmallCheckout
from tests.slurm.cluster import environment_without_settings, wait_until

MARK = "TRAINYARD_TEST_MARK"
"""a variable that every process of a launch inherits, and no other has"""
GONE_SECONDS = 10.0
"""the promise: so long after a kill nothing is left"""

# Modules of the checkout have the names of the stand-in's, so the node is started from elsewhere; an exec keeps the
# process, and what it asked of the kernel. A rank that ignores SIGTERM is waited for, which the tests do not need.
_NODE = f'''
import os, sys
os.environ["PYTHONPATH"] = "{{folder}}:{CHECKOUT}"
program = """
import sys
from megatron_patches.launch import node
node.RANK, node.GRACE_AFTER_PARENT = "stubborn", 0.3
sys.exit(node.main(sys.argv[1:]))
"""
os.chdir("{{folder}}")
os.execv(sys.executable, [sys.executable, "-c", program, *sys.argv[1:]])
'''
_RANK = """
import os, signal, subprocess, threading, time
from slurm.parent import command_ending_with_it
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def sample():
    subprocess.run(command_ending_with_it(["sleep", "300"]))
threading.Thread(target=sample, daemon=True).start()
open("started-" + os.environ["RANK"], "w").close()
time.sleep(300)
"""


class StubbornCheckout(SmallCheckout):
    """A small checkout whose nodes are real and whose ranks do not end by themselves."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.work = root / "work"
        self.work.mkdir()
        (root / "megatron_patches/launch/node.py").write_text(_NODE.format(folder=self.work))
        (self.work / "stubborn.py").write_text(_RANK)

    @staticmethod
    def ranks_of(root: Path) -> int:
        """How many ranks of the checkout at this place were started."""
        return len(list((root / "work").glob("started-*")))

    def ranks_started(self) -> int:
        """The same of this one: three on each node."""
        return self.ranks_of(self.root)


class Marked:
    """The processes that were started with a mark in their environment, wherever on this machine."""

    def __init__(self) -> None:
        self.environment = {MARK: secrets.token_hex(8)}
        self._wanted = f"{MARK}={self.environment[MARK]}".encode()

    def processes(self) -> dict[int, str]:
        """Those that live now, with their command lines."""
        found = {}
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdecimal() and self._wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has just ended
                continue
        return found

    def find(self, matches: Callable[[str], bool], seconds: float = 60) -> int:
        """A process with such a command line, once there is one."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [pid for pid, line in self.processes().items() if matches(line)]
            return bool(found)

        wait_until(look, seconds, "a process of the launch")
        return found[0]

    def kill(self) -> None:
        """End all of them."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def is_launcher(line: str) -> bool:
    """`slurm/launch` itself, not as the task of a node."""
    return "slurm/launch" in line and "python" in line and "--node" not in line and "srun" not in line


def is_node(line: str) -> bool:
    """The process of a node, once it is the real one."""
    return " -c " in line and "launch import node" in line


def is_real_node(line: str) -> bool:
    """The process of a node, of the checkout that is tested."""
    return "-m megatron_patches.launch.node" in line


def start_launch(checkout: StubbornCheckout, marked: Marked) -> subprocess.Popen[bytes]:
    """Start the launch of a small checkout on this machine."""
    return subprocess.Popen(
        [sys.executable, str(checkout.launch), RUN],
        cwd=checkout.root,
        env={**environment_without_settings(), **marked.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def left_after_kill(checkout: StubbornCheckout, victim: str, delay: float | None) -> dict[int, str]:
    """What is left 10 s after a kill of the launcher, or of the node process, mostly much sooner known to be nothing.

    Args:
        victim: `launcher`, killed so many seconds after its start, or `node`, after the node's.
        delay: seconds; None: until all its ranks run.
    """
    marked = Marked()
    launched = start_launch(checkout, marked)
    try:
        victim_pid = launched.pid if victim == "launcher" else marked.find(is_node)
        if delay is None:
            wait_until(lambda: checkout.ranks_started() == 3, 60, "the start of the ranks")
        else:
            time.sleep(delay)
        os.kill(victim_pid, signal.SIGKILL)
        killed = time.monotonic()
        launched.wait(GONE_SECONDS)
        while (left := marked.processes()) and time.monotonic() - killed < GONE_SECONDS:
            time.sleep(0.05)
        return left
    finally:
        marked.kill()
        launched.wait()
