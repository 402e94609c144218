"""The demo's run, from `bash x.slurm` to its first recorded step, in seconds: `python -m tests.start_time [LAUNCHES]`.

Each launch is the demo's, as a user types it, in a run directory of its own; after its first step it is stopped. Shown
are medians, by phase: wall-clock seconds, and CPU seconds of the processes that the first step waits for, which a busy
machine changes less. The demo's data is made first where it is missing (TRAINYARD_DATA says where).
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import psutil  # type: ignore[import-untyped]

from megatron_patches.events.reading import read_events
from megatron_patches.run.reading import load_run
from megatron_patches.run.run_directory import run_directory
from tools.commands.demo import CHECKOUT, SCRIPT, Demo

LOOK_EVERY = 0.1
"""seconds; the times themselves come from the kernel and from events, so that a look may be late"""
GIVE_UP_AFTER = 300.0


@dataclass(frozen=True)
class Phase:
    """What a launch does until the next of its processes starts, or the next event is recorded."""

    name: str
    wall: float
    cpu: float


def main(arguments: list[str]) -> int:
    """The command line."""
    launches = int(arguments[0]) if arguments else 5
    config = load_run(CHECKOUT / SCRIPT.with_suffix(".yaml"))
    Demo(config, run_directory(config)).make_data()
    measured = [measure_launch() for _ in range(launches)]
    print(f"\n{SCRIPT}, median of {launches} launches        wall s   CPU s")
    for each in zip(*measured, strict=True):
        wall, cpu = median(phase.wall for phase in each), median(phase.cpu for phase in each)
        print(f"{each[0].name:<61} {wall:7.2f} {cpu:7.2f}")
    wall, cpu = (median(sum(getattr(phase, kind) for phase in each) for each in measured) for kind in ("wall", "cpu"))
    print(f"{'to the first step':<61} {wall:7.2f} {cpu:7.2f}")
    return 0


def measure_launch() -> list[Phase]:
    """One launch, stopped after its first step."""
    with tempfile.TemporaryDirectory() as runs:
        started = time.time()
        with subprocess.Popen(
            ["bash", str(SCRIPT)], cwd=CHECKOUT, env=os.environ | {"TRAINYARD_RUNS": runs},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as launch:  # fmt: skip
            try:
                return list(phases(psutil.Process(launch.pid), started, Path(runs)))
            finally:
                launch.send_signal(signal.SIGUSR1)
                launch.wait()


def phases(launch: psutil.Process, started: float, runs: Path) -> Iterator[Phase]:
    """As the launch goes on."""
    node = wait_for(launch, "megatron_patches.launch.node")
    before = launch.cpu_times()
    yield Phase(
        "script, slurm/launch and the plan", node.create_time() - started,
        before.user + before.system + before.children_user + before.children_system,
    )  # fmt: skip
    rank = wait_for(node, "megatron_patches.launch.rank")
    yield Phase("node", rank.create_time() - node.create_time(), cpu_seconds(node))
    times: dict[str, float] = {}
    while "step" not in times:
        still_runs(launch, started)
        for event in (event for folder in runs.glob("*/events") for event in read_events(folder)):
            times.setdefault(event.kind, datetime.fromisoformat(event.time).timestamp())
        if "start" in times and "cpu" not in times:
            times["cpu"] = cpu_seconds(rank)
        time.sleep(LOOK_EVERY)
    yield Phase("a rank: imports, process groups, data, engine", times["start"] - rank.create_time(), times["cpu"])
    yield Phase("a rank: the first step", times["step"] - times["start"], cpu_seconds(rank) - times["cpu"])


def wait_for(parent: psutil.Process, module: str) -> psutil.Process:
    """The first child of a process that runs this module."""
    while True:
        still_runs(parent, parent.create_time())
        for child in parent.children():
            with suppress(psutil.NoSuchProcess):  # it has just ended
                if module in child.cmdline():
                    return child
        time.sleep(LOOK_EVERY)


def still_runs(process: psutil.Process, started: float) -> None:
    """Raise RuntimeError if it has ended, or takes far too long."""
    if process.status() == psutil.STATUS_ZOMBIE or time.time() - started > GIVE_UP_AFTER:
        raise RuntimeError(f"the launch did not come to its first step: run bash {SCRIPT} to see why")


def cpu_seconds(process: psutil.Process) -> float:
    """Of the process alone, since its start."""
    times = process.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
