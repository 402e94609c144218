"""One node of a launch: starts its training processes, and ends as they end.

    python -m megatron_patches.launch.node LAUNCH_FOLDER --nodes N --node-rank R --processes P --host HOST --port PORT

`slurm/launch` starts it once on every node. Each process is `megatron_patches.launch.rank`. A file `stop-requested` in
the launch's folder asks the run to stop: each process then gets SIGUSR1. It starts with that signal blocked, and
unblocks it once it has its handler, so that an early request is neither lost nor kills.
"""

import argparse
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from megatron_patches.artefacts.run_folder import FAILURE, STOP_REQUESTED
from megatron_patches.atomic_files import temporary_path
from megatron_patches.launch.rank_processes import NodeRanks, RankEnded, RankProcesses
from megatron_patches.launch.rank_settings import available_cpus

RANK = "megatron_patches.launch.rank"
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
LOOK_EVERY = 1.0
"""seconds between looks for `stop-requested`: one look at a shared file system for each node"""
GRACE_AFTER_FAILURE = 5.0
"""seconds that the other ranks have to put on record what broke for them; none can go on without the one that failed"""
GRACE_AFTER_SIGNAL = 30.0
"""seconds that ranks have to end their step and save, at a SIGTERM to the node; SLURM's KillWait is often as long"""


@dataclass(frozen=True)
class Failure:
    """The process whose end ended the launch."""

    rank: int
    """among all processes of the launch"""
    node: str
    """host name"""
    code: int
    """as `subprocess` gives it: -n where signal n ended the process"""

    @property
    def exit_code(self) -> int:
        """As a shell gives it: 128 + n where signal n ended the process."""
        return 128 - self.code if self.code < 0 else self.code

    def __str__(self) -> str:
        how = f"was ended by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with code {self.code}"
        return f"rank {self.rank} on {self.node} {how}"


def main(arguments: Sequence[str]) -> int:
    """The command line; returns its exit code, which is that of the first process that failed."""
    parser = argparse.ArgumentParser("python -m megatron_patches.launch.node", allow_abbrev=False)
    parser.add_argument("launch_directory", type=Path)
    parser.add_argument("--nodes", type=int, required=True, help="nodes of the launch")
    parser.add_argument("--node-rank", type=int, required=True, help="this node, from 0")
    parser.add_argument("--processes", type=int, required=True, help="processes on each node")
    parser.add_argument("--host", required=True, help="name or address of node 0")
    parser.add_argument("--port", type=int, required=True, help="port on node 0 where the processes meet")
    options = parser.parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # the processes inherit it
    node_ranks = NodeRanks(
        world_size=options.nodes * options.processes,
        first=options.node_rank * options.processes,
        count=options.processes,
        host=options.host,
        port=options.port,
    )
    # unbuffered, so that what a rank printed is in the log also when it is killed
    # its libraries read the number of threads when they are loaded: numpy's comes before anything of a rank's own
    environment = {"OMP_NUM_THREADS": str(max(1, available_cpus() // options.processes)), **os.environ}
    command = [sys.executable, "-u", "-m", RANK, str(options.launch_directory)]
    ranks = RankProcesses(command, node_ranks, environment, signals=ENDING_SIGNALS)
    try:
        return watch(ranks, options.launch_directory)
    finally:  # whatever goes wrong here, no rank goes on without its node
        ranks.end(grace=0)


def watch(ranks: RankProcesses, launch_directory: Path) -> int:
    """Waits for the end of all processes; 0, 128 + n where signal n ended this node, or the first failure's code."""
    asked = False
    while ranks.running:
        match ranks.next_event(timeout=LOOK_EVERY):
            case signal.Signals() as number:
                ranks.end(GRACE_AFTER_SIGNAL)
                return 128 + number
            case RankEnded(rank, code) if code:
                failure = Failure(rank, socket.gethostname(), code)
                record_failure(failure, launch_directory)  # at once: other nodes fail of it while this one still waits
                ranks.end(GRACE_AFTER_FAILURE)
                print(failure, file=sys.stderr)
                return failure.exit_code
        # os.path's answers no to every error of the file system: the next look may find it
        if not asked and os.path.exists(launch_directory / STOP_REQUESTED):  # noqa: PTH110
            ranks.send(signal.SIGUSR1)
            asked = True
    return 0


def record_failure(failure: Failure, launch_directory: Path) -> None:
    """Writes `failure.json`, unless another node's is there: what failed first is the cause of the rest."""
    text = json.dumps({"rank": failure.rank, "node": failure.node, "exit_code": failure.exit_code})
    target = launch_directory / FAILURE
    temporary = temporary_path(target)
    temporary.write_text(text + "\n")
    with suppress(FileExistsError):  # a link, unlike a rename, does not replace
        target.hardlink_to(temporary)
    temporary.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
