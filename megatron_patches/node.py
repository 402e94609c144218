"""One node of a launch: starts its training processes through torchrun, and ends as they end.

    python -m megatron_patches.node LAUNCH_DIRECTORY --nodes N --node-rank R --processes P --host HOST --port PORT

`slurm/launch` starts it once on every node. Each process is `python -m megatron_patches.train LAUNCH_DIRECTORY` with
torchrun's variables. A file `stop-requested` in the launch's folder asks the run to stop: each process then gets
SIGUSR1. It starts with that signal blocked, and unblocks it once it has its handler, so that an early request is
neither lost nor kills.
"""

import argparse
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # DeepSpeed requires it

from data_tools.atomic_files import temporary_path

TRAINER = "megatron_patches.train"


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
    parser = argparse.ArgumentParser("python -m megatron_patches.node", allow_abbrev=False)
    parser.add_argument("launch_directory", type=Path)
    parser.add_argument("--nodes", type=int, required=True, help="nodes of the launch")
    parser.add_argument("--node-rank", type=int, required=True, help="this node, from 0")
    parser.add_argument("--processes", type=int, required=True, help="processes on each node")
    parser.add_argument("--host", required=True, help="name or address of node 0")
    parser.add_argument("--port", type=int, required=True, help="port on node 0 where the processes meet")
    options = parser.parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    threading.Thread(target=pass_on_request, args=(options.launch_directory, options.processes), daemon=True).start()
    outcome = run_torchrun(options)
    if isinstance(outcome, Failure):
        print(outcome, file=sys.stderr)
        record_failure(outcome, options.launch_directory)
        return outcome.exit_code
    return outcome


def pass_on_request(launch_directory: Path, processes: int) -> None:
    """Waits for the request to stop, and sends it to this process's children: torchrun's workers."""
    this = psutil.Process()
    # one look at a shared file system each second and node
    while not (launch_directory / "stop-requested").exists() or len(this.children()) < processes:
        time.sleep(1)
    for worker in this.children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            worker.send_signal(signal.SIGUSR1)


def run_torchrun(options: argparse.Namespace) -> int | Failure:
    """Runs the processes to their end: 0, 128 + n where signal n ended this node, or the first failure."""
    import torch
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
    if gpus is not None and gpus < options.processes:
        print(
            f"error: {options.processes} processes on {socket.gethostname()}, which has {gpus} GPUs for them; use a "
            "layout of fewer processes (--parallel.tensor, --parallel.pipeline), or hide the GPUs to run on the CPU: "
            "export CUDA_VISIBLE_DEVICES=",
            file=sys.stderr,
        )
        return 2
    # torchrun tells of a failure in 10 lines of its own; ours is one, with rank and node
    logging.disable(logging.ERROR)
    quieten_libraries()
    # on a GPU one thread is torchrun's own choice, which it would make with a banner
    threads = 1 if torch.cuda.is_available() else max(1, available_cpus() // options.processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    try:
        torchrun.run(torchrun.parse_args(torchrun_arguments(options)))
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        return Failure(rank, socket.gethostname(), first.exitcode)
    except SignalException as error:
        return 128 + error.sigval
    return 0


def quieten_libraries() -> None:
    """Settings that spare people what they know, in this process and those it starts; a user's own win."""
    import torch

    # tensor parallelism overlaps a reduction with a product only if kernels start in order; megatron-core asks for it
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would come to the same, with a warning


def torchrun_arguments(options: argparse.Namespace) -> list[str]:
    """The command line of torchrun: a static meeting place, no restarts, nothing written anywhere."""
    return [
        *(f"--nnodes={options.nodes}", f"--node-rank={options.node_rank}", f"--nproc-per-node={options.processes}"),
        *("--rdzv-backend=static", f"--master-addr={options.host}", f"--master-port={options.port}"),
        *("--max-restarts=0", f"--log-dir={os.devnull}"),
        *("--module", TRAINER, str(options.launch_directory)),
    ]


def available_cpus() -> int:
    """CPUs that this node's processes may use; SLURM counts them also where it does not bind."""
    bound = len(os.sched_getaffinity(0))
    return min(bound, int(os.environ.get("SLURM_CPUS_ON_NODE", bound)))


def record_failure(failure: Failure, launch_directory: Path) -> None:
    """Writes `failure.json`, unless another node's is there: what failed first is the cause of the rest."""
    text = json.dumps({"rank": failure.rank, "node": failure.node, "exit_code": failure.exit_code})
    target = launch_directory / "failure.json"
    temporary = temporary_path(target)
    temporary.write_text(text + "\n")
    with suppress(FileExistsError):  # a link, unlike a rename, does not replace
        target.hardlink_to(temporary)
    temporary.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
