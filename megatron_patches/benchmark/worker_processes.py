"""The processes of a measurement: on this machine, or on the nodes of a SLURM job. Torch-free."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from megatron_patches.benchmark.turns import Turns
from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import TrainingFailed, TrainyardError
from megatron_patches.launch.rank_processes import NodeRanks, RankEnded, RankProcesses
from megatron_patches.run.run_directory import Launch
from slurm.job import JobError, free_local_port, meeting_port, number, require_job

WORKER = "megatron_patches.benchmark.worker"


def run_workers(
    launch: Launch, turns: Turns, threads: int, world: int, peer: str | None, trace: Path | None
) -> dict[str, Any]:
    """One process a rank of a launch; what rank 0 measured.

    Raises:
        TrainyardError: a worker refused its input; the message is its own.
        TrainingFailed: a step failed, or a worker died; then the message is the end of what it said.
    """
    arguments = [str(launch.directory), "--alternations", str(turns.alternations)]
    arguments += ["--warmup", str(turns.warmup), "--steps", str(turns.steps)]
    arguments += ["--peer", peer] if peer else []
    arguments += ["--trace", str(trace.resolve())] if trace else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(CHECKOUT)}
    environment |= {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}  # as a launch has it (rank_settings.quieten_libraries)
    command = [sys.executable, "-P", "-m", WORKER, *arguments]
    log = launch.directory / "worker.log"
    with log.open("w") as output:  # the trainer's own log lines go where they would in a job: to a file
        run = _run_on_nodes if job_nodes() > 1 else _run_here
        code = run(command, environment, output, world)
    lines = log.read_text(errors="replace").splitlines()
    errors = list(dict.fromkeys(line.removeprefix("error: ") for line in lines if line.startswith("error: ")))
    if code == 2:
        raise TrainyardError("\n".join(errors))
    if code:
        raise TrainingFailed("\n".join(errors or [*lines[-30:], f"the measurement ended with code {code}"]))
    return json.loads((launch.directory / "measurement.json").read_text())


def _run_here(command: list[str], environment: dict[str, str], output: IO[str], world: int) -> int:
    """One process a rank; the first that fails ends the others, and gives the code."""
    try:
        port = free_local_port()
    except JobError as error:
        raise TrainyardError(str(error)) from None
    node_ranks = NodeRanks(world_size=world, first=0, count=world, host="127.0.0.1", port=port)
    ranks = RankProcesses(command, node_ranks, environment, output)
    try:
        while ranks.running:
            match ranks.next_event():
                case RankEnded(code=code) if code:
                    return code
        return 0
    finally:
        ranks.end(grace=0)


def job_nodes() -> int:
    """Nodes of the SLURM job that this is part of; 1 without one.

    Raises:
        TrainyardError: SLURM's variable holds no number.
    """
    try:
        return number("SLURM_JOB_NUM_NODES", 1) if "SLURM_JOB_NUM_NODES" in os.environ else 1
    except JobError as error:
        raise TrainyardError(str(error)) from None


def _run_on_nodes(command: list[str], environment: dict[str, str], output: IO[str], world: int) -> int:
    """One task a rank over the job's nodes, by srun; they meet on the first node."""
    try:
        job = require_job()
        # 10000 beside those of launches
        port = meeting_port(job.hosts[0], 20_000 + job.identity % 20_000, "from 20000 + job id % 20000 on")
    except JobError as error:
        raise TrainyardError(str(error)) from None
    meeting = {"MASTER_ADDR": job.hosts[0], "MASTER_PORT": str(port)}
    srun = ["srun", f"--ntasks={world}", f"--ntasks-per-node={world // job.nodes}", "--kill-on-bad-exit=1"]
    done = subprocess.run(
        [*srun, *command], env=environment | meeting, stdout=output, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode
