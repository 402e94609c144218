"""Run a function on several ranks, in processes that are forked from one that has torch and DeepSpeed imported.

Importing them costs seconds; a fork costs milliseconds, and every call gets fresh processes with no state of an
earlier test in them. Of the 0.19 s of CPU time that a rank takes for an engine and a step, ranks that live on from call
to call would save 0.06 s, for which environment, DeepSpeed's and megatron-core's global state and signals would leak.
"""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preload"])


class RankFailed(Exception):
    """A rank raised; the message is its traceback."""


class Ranks:
    """Processes that run one function, rank by rank, joined by a store of the test's own process."""

    def __init__(self, function: Callable[..., Any], world_size: int, *arguments: Any) -> None:
        from torch.distributed import TCPStore

        sys.audit("tests.ranks")  # `tests/quickness.py` asks whether the test is marked slow
        # The test owns the store and the system chooses its port: no two tests can want the same one.
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.processes: list[BaseProcess] = []
        self._ends: list[Connection] = []
        for rank in range(world_size):
            mine, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(
                target=_run, args=(theirs, function, rank, world_size, self._store.port, dict(os.environ), arguments)
            )
            process.start()
            theirs.close()
            self.processes.append(process)
            self._ends.append(mine)

    def results(self, timeout: float = 300) -> list[Any]:
        """What the function returned on each rank, in order; raises RankFailed or TimeoutError."""
        deadline = time.monotonic() + timeout
        results = []
        try:
            for rank, end in enumerate(self._ends):
                if not end.poll(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"rank {rank} has not answered in {timeout} s")
                try:
                    ok, value = end.recv()
                except EOFError:
                    raise RankFailed(f"rank {rank} ended without an answer") from None
                if not ok:
                    raise RankFailed(f"rank {rank}:\n{value}")
                results.append(value)
            return results
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL all ranks that are still there."""
        for process in self.processes:
            process.kill()
            process.join()


def run_on_ranks(function: Callable[..., Any], world_size: int, *arguments: Any, timeout: float = 300) -> list[Any]:
    """Call `function(*arguments)` on every rank; its result on each."""
    return Ranks(function, world_size, *arguments).results(timeout)


def _run(
    end: Connection,
    function: Callable[..., Any],
    rank: int,
    world_size: int,
    port: int,
    environment: dict[str, str],
    arguments: tuple[Any, ...],
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment)  # the fork server keeps that of the first test that used it
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size), MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="0",
    )  # fmt: skip
    try:
        end.send((True, function(*arguments)))
    except BaseException:  # noqa: BLE001  whatever it was, the test process shows it
        end.send((False, traceback.format_exc()))
