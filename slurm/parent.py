"""Processes that end with the one that started them, however that one ends.

    python -IS slurm/parent.py PID COMMAND ...   become a command that is killed when process PID, which starts it, dies

A process that SIGKILL ends can tell its children nothing. The kernel does, if they ask for it. `slurm/launch` uses this
on a login node's Python: standard library only, and nothing newer than Python 3.6.
"""
# ruff: noqa: UP006, UP035

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Callable, List, Sequence

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here: between fork and exec nothing should be


def ask_for_signal(number: int) -> None:
    """Have the kernel send this process a signal when its parent dies, more exactly the thread that started it.

    The request outlives an exec, unless that changes the user.

    Raises:
        OSError: the system has no such request.
    """
    if _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def ending_with_this_process(number: int = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn`: the child gets this signal when this process dies, also where that is before the child asked.

    For a child of a thread that lives as long as the process. It is Python between fork and exec, so it is for
    processes that have one thread then; what a process of several starts goes through `command_ending_with_it`.
    """
    parent = os.getpid()

    def ask() -> None:
        ask_for_signal(number)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return ask


def command_ending_with_it(command: Sequence[str]) -> List[str]:
    """The words that start a command so that it is killed when the process (the thread) that starts it dies."""
    return [sys.executable, "-IS", str(Path(__file__).resolve()), str(os.getpid()), *command]


if __name__ == "__main__":
    ask_for_signal(signal.SIGKILL)
    if os.getppid() == int(sys.argv[1]):
        os.execvp(sys.argv[2], sys.argv[2:])
