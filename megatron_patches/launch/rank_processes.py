"""The processes of one node's ranks: started, watched and ended together. Torch-free.

Each gets the variables by which PyTorch's processes find each other (`RANK`, `LOCAL_RANK`, `WORLD_SIZE`, `MASTER_ADDR`,
`MASTER_PORT`); rank 0 opens the port. Why this is no torchrun: ARCHITECTURE.md, "Start-up".
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from slurm.parent import ending_with_this_process


@dataclass(frozen=True)
class NodeRanks:
    """Which ranks of a launch this node has, and where all of them meet."""

    world_size: int
    first: int
    """rank of this node's first process"""
    count: int
    """processes of this node"""
    host: str
    """name or address of the node that has rank 0"""
    port: int
    """on that node; rank 0 opens it"""
    before: int = 0
    """ranks of this node before the first one that are started elsewhere"""

    def variables(self, local_rank: int) -> dict[str, str]:
        """What PyTorch reads in the environment of one process."""
        return {
            "RANK": str(self.first + local_rank),
            "LOCAL_RANK": str(self.before + local_rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.before + self.count),
            "MASTER_ADDR": self.host,
            "MASTER_PORT": str(self.port),
        }


@dataclass(frozen=True)
class RankEnded:
    """One process is over."""

    rank: int
    code: int
    """as `subprocess` gives it: -n where signal n ended the process"""


class RankProcesses:
    """One process for each rank of this node."""

    def __init__(
        self,
        command: Sequence[str],
        node_ranks: NodeRanks,
        environment: Mapping[str, str] = os.environ,
        output: IO[str] | None = None,
        signals: Sequence[signal.Signals] = (),
    ) -> None:
        """Starts them; what they print goes to `output`, else where this process prints.

        The kernel kills them when the thread that calls this is over, and so when this process is, whatever ends it.
        From now on `next_event` tells of these signals, in place of what they would do to this process.
        """
        self._events: SimpleQueue[RankEnded | signal.Signals] = SimpleQueue()
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        for number in signals:
            signal.signal(number, self._report_signal)
        try:
            for local_rank in range(node_ranks.count):
                self._running[node_ranks.first + local_rank] = subprocess.Popen(
                    command,
                    env={**environment, **node_ranks.variables(local_rank)},
                    stdout=output,
                    stderr=subprocess.STDOUT if output else None,
                    start_new_session=True,  # a group of its own, so that what a rank started can be ended with it
                    preexec_fn=ending_with_this_process(),
                )
            for rank, process in self._running.items():
                threading.Thread(target=self._report_end, args=(rank, process), daemon=True).start()
        except BaseException:
            self.end(grace=0)
            raise

    def _report_end(self, rank: int, process: "subprocess.Popen[bytes]") -> None:
        self._events.put(RankEnded(rank, process.wait()))

    def _report_signal(self, number: int, _frame: object) -> None:
        self._events.put(signal.Signals(number))

    @property
    def running(self) -> bool:
        """Whether one of them has not been reported as ended."""
        return bool(self._running)

    def next_event(self, timeout: float | None = None) -> RankEnded | signal.Signals | None:
        """What happened next: a process ended, or a signal came; None after so many seconds in which nothing did."""
        try:
            event = self._events.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(event, RankEnded):
            self._running.pop(event.rank, None)  # gone already where `end` waited for it
        return event

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to each that still runs."""
        for process in self._running.values():
            with suppress(ProcessLookupError):  # it has just ended
                process.send_signal(number)

    def not_taking(self, number: signal.Signals) -> list[int]:
        """Ranks that were sent this signal and have not taken it: they block it still."""
        return [rank for rank, process in self._running.items() if _is_pending(number, process.pid)]

    def end(self, grace: float) -> None:
        """Ends all that still run: SIGTERM, and SIGKILL, to their children too, after so many seconds."""
        if grace:
            self.send(signal.SIGTERM)
            deadline = time.monotonic() + grace
            for process in list(self._running.values()):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        # another thread may wait for events, which takes from what is running
        for process in list(self._running.values()):
            with suppress(ProcessLookupError):  # it has ended, and nothing of it is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running.clear()


def _is_pending(number: signal.Signals, pid: int) -> bool:
    try:
        status = Path("/proc", str(pid), "status").read_text()
    except OSError:  # it has just ended
        return False
    pending = next((line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd:")), "0")
    return bool(int(pending, 16) >> (number - 1) & 1)
