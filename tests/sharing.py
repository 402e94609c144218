"""How processes share the tests (`make test`): file by file, so that a module's fixtures are made once.

Each has its own share of the CPUs, and so have the ranks that it starts: ranks send each other thousands of small
messages, and waking the receiver on another CPU costs a virtual machine more than letting it follow on the same one.
"""

import os
from typing import Any

from xdist.scheduler import LoadScopeScheduling

from tests.order import CLUSTER


class FileScheduling(LoadScopeScheduling):
    """A file goes to the process that is free; those of the cluster go to one process, which starts it once."""

    def _split_scope(self, nodeid: str) -> str:
        return CLUSTER if nodeid.startswith(CLUSTER) else nodeid.partition("::")[0]


def use_own_cpus(worker: dict[str, Any]) -> None:
    """Binds this process to every n-th CPU, as one of n workers; where there are fewer CPUs, it uses all."""
    cpus, workers = sorted(os.sched_getaffinity(0)), int(worker["workercount"])
    if workers <= len(cpus):
        os.sched_setaffinity(0, cpus[int(worker["workerid"].removeprefix("gw")) :: workers])
