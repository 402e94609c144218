"""One node of a launch: starts its training processes, and ends as they end.

    python -m megatron_patches.launch.node LAUNCH_FOLDER --nodes N --node-rank R --processes P --host HOST --port PORT
        [--rank MODULE]

`slurm/launch` starts it once on every node. Each process is `megatron_patches.launch.rank`, or another module that the
plan of the launch names. A file `stop-requested` in
the launch's folder asks the run to stop: each process then gets SIGUSR1. It starts with that signal blocked, and
unblocks it once it has its handler, so that an early request is neither lost nor kills. No process outlives the one
that started it, even where that is killed: the kernel then ends its children (`slurm/parent.py`).
"""

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from megatron_patches.artefacts.run_folder import STOP_REQUESTED, STOPPED
from megatron_patches.errors import TrainyardError
from megatron_patches.launch.failure import Failure, record_failure
from megatron_patches.launch.rank_processes import NodeRanks, RankEnded, RankProcesses
from megatron_patches.launch.rank_settings import available_cpus
from megatron_patches.run.ownership import has_begun, later_launches
from slurm.parent import ask_for_signal

RANK = "megatron_patches.launch.rank"
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
LOOK_EVERY = 1.0
"""seconds between looks for `stop-requested`: one look at a shared file system for each node"""
GRACE_AFTER_FAILURE = 5.0
"""seconds that the other ranks have to put on record what broke for them; none can go on without the one that failed"""
GRACE_AFTER_SIGNAL = 30.0
"""seconds that ranks have to end their step and save, at a SIGTERM to the node; SLURM's KillWait is often as long"""
GRACE_AFTER_PARENT = 5.0
"""seconds that ranks have to save where the launcher is gone, which may happen without any warning"""
START_AFTER_REQUEST = 60.0
"""seconds that ranks have to begin to train once they were asked to stop; a step and a save may take longer"""
LOOKS_AT_NOTHING = 5
"""looks in a row that miss the launch's folder until it counts as deleted: a network file system may lose it for one"""


def main(arguments: Sequence[str]) -> int:
    """The command line; returns its exit code, which is that of the first process that failed."""
    parser = argparse.ArgumentParser("python -m megatron_patches.launch.node", allow_abbrev=False)
    parser.add_argument("launch_directory", type=Path)
    parser.add_argument("--nodes", type=int, required=True, help="nodes of the launch")
    parser.add_argument("--node-rank", type=int, required=True, help="this node, from 0")
    parser.add_argument("--processes", type=int, required=True, help="processes on each node")
    parser.add_argument("--host", required=True, help="name or address of node 0")
    parser.add_argument("--port", type=int, required=True, help="port on node 0 where the processes meet")
    parser.add_argument("--rank", default=RANK, metavar="MODULE", help="what each process runs (default: %(default)s)")
    options = parser.parse_args(arguments)
    parent = Parent()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # the processes inherit it
    node_ranks = NodeRanks(
        world_size=options.nodes * options.processes,
        first=options.node_rank * options.processes,
        count=options.processes,
        host=options.host,
        port=options.port,
    )
    try:
        threads = max(1, available_cpus() // options.processes)
    except TrainyardError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # unbuffered, so that what a rank printed is in the log also when it is killed
    # its libraries read the number of threads when they are loaded: numpy's comes before anything of a rank's own
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    command = [sys.executable, "-u", "-m", options.rank, str(options.launch_directory)]
    ranks = RankProcesses(command, node_ranks, environment, signals=ENDING_SIGNALS)
    try:
        return watch(ranks, options.launch_directory, parent, is_first=options.node_rank == 0)
    finally:  # whatever goes wrong here, no rank goes on without its node
        ranks.end(grace=0)


class Parent:
    """The process that started this one: `slurm/launch`, SLURM's own on this node, or a container's."""

    def __init__(self) -> None:
        """From now on this process gets SIGTERM when that one dies."""
        ask_for_signal(signal.SIGTERM)
        self._pid = os.getppid()

    @property
    def is_gone(self) -> bool:
        """Whether it is over: then nothing passes requests to stop on, and another launch may take the run over."""
        return os.getppid() != self._pid


def watch(ranks: RankProcesses, launch_directory: Path, parent: Parent, is_first: bool = False) -> int:
    """Waits for the end of all processes; 0, 128 + n where signal n ended this node, or the first failure's code.

    Args:
        parent: who started this node; it does not go on without it.
        is_first: this node also looks whether another launch has taken the run over, and then asks this one to stop.
    """
    folder = LaunchWatch(launch_directory)
    while ranks.running:
        match ranks.next_event(timeout=LOOK_EVERY):
            case signal.Signals() as number:
                end_after_signal(ranks, parent)
                return 128 + number
            case RankEnded(rank, code) if code:
                failure = Failure.of_rank(rank, code, launch_directory)
                record_failure(failure, launch_directory)  # at once: other nodes fail of it while this one still waits
                ranks.end(GRACE_AFTER_FAILURE)
                print(failure.text, file=sys.stderr)
                return failure.exit_code
        if parent.is_gone:
            ranks.end(GRACE_AFTER_PARENT)
            return 1
        if is_first and folder.yields():
            ranks.end(GRACE_AFTER_FAILURE)
            return 1
        if folder.newly_asked_to_stop():
            ranks.send(signal.SIGUSR1)
        if folder.seconds_since_request() > START_AFTER_REQUEST and (waiting := ranks.not_taking(signal.SIGUSR1)):
            print(
                f"ranks {', '.join(map(str, waiting))} on {socket.gethostname()} were asked to stop and have not begun "
                f"to train after {START_AFTER_REQUEST:.0f} s: ended; launch the run again to go on",
                file=sys.stderr,
            )
            ranks.end(GRACE_AFTER_FAILURE)
            if folder.taken_over:  # it is the later launch that goes on
                return 1
            folder.record_stop()
            return 0
        if folder.is_deleted():
            print(
                f"{launch_directory} was deleted while its run went on, which can no longer record or save anything: "
                "ended; restore the run's folder from a copy, or launch the run again to begin anew",
                file=sys.stderr,
            )
            ranks.end(GRACE_AFTER_FAILURE)
            return 1
    return 0


def end_after_signal(ranks: RankProcesses, parent: Parent) -> None:
    """Ends the ranks; what they have left to do so is cut short when this node is without its parent, or becomes so."""
    ranks.send(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_AFTER_SIGNAL
    while ranks.running and not parent.is_gone and time.monotonic() < deadline:
        ranks.next_event(timeout=LOOK_EVERY)
    ranks.end(GRACE_AFTER_PARENT if parent.is_gone else 0)


class LaunchWatch:
    """What a node looks for in its launch's folder."""

    def __init__(self, launch_directory: Path) -> None:
        self._folder = launch_directory
        self._asked_at: float | None = None
        self._misses = 0
        self.taken_over = False
        """whether a later launch was seen"""

    def newly_asked_to_stop(self) -> bool:
        """True once, when the request is there."""
        # os.path's answers no to every error of the file system: the next look may find it
        if self._asked_at is not None or not os.path.exists(self._folder / STOP_REQUESTED):  # noqa: PTH110
            return False
        self._asked_at = time.monotonic()
        return True

    def yields(self) -> bool:
        """Whether a later launch owns the run and trains already: then there is nothing left to save.

        One that has not begun yet waits for nothing: this launch, which was taken for dead while it stood still, is
        asked to stop, and saves itself as it does so.
        """
        with suppress(OSError):  # a file system that fails for a moment: the next look, or the next save, finds it
            if later := later_launches(self._folder):
                if not self.taken_over:
                    self.taken_over = True
                    print(f"launch {later[-1].name} has taken the run over: this one stops", file=sys.stderr)
                    (self._folder / STOP_REQUESTED).touch()
                return any(has_begun(each) for each in later)
        return False

    def seconds_since_request(self) -> float:
        """0 while nobody asked."""
        return 0.0 if self._asked_at is None else time.monotonic() - self._asked_at

    def is_deleted(self) -> bool:
        """Whether the folder has been missing for a while; other errors of the file system say nothing."""
        try:
            self._folder.stat()
            self._misses = 0
        except FileNotFoundError:
            self._misses += 1
        except OSError:
            pass
        return self._misses >= LOOKS_AT_NOTHING

    def record_stop(self) -> None:
        """As a rank does that has saved itself: the launch is to be continued."""
        (self._folder / STOPPED).touch()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
