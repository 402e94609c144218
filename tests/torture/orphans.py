"""Kills of launcher and node at random instants: `python -m tests.torture.orphans --rounds 60 --trainings 20`.

Most with ranks that stand in; and one run that really trains, on two ranks, is killed again and again at any instant of
its start, its steps and its saves. After 10 s no process may be left, and each launch goes on where the newest whole
checkpoint is.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from megatron_patches.artefacts.branch import read_beginnings
from megatron_patches.artefacts.folders import inspect, list_checkpoints, step_of
from megatron_patches.artefacts.run_folder import RunFolder
from tests.slurm.orphans import GONE_SECONDS, Marked, StubbornCheckout, is_launcher, is_real_node, left_after_kill
from tests.slurm.test_two_launches import RUN, arguments, launched
from tests.small_training import make_small_data, overrides


def stand_ins(rounds: int, draw: random.Random) -> list[str]:
    """So many launches with stubborn ranks, each killed once; what was left of them."""
    problems = []
    for _ in range(rounds):
        victim, delay = draw.choice(["launcher", "node"]), draw.uniform(0, 2)
        with tempfile.TemporaryDirectory() as folder:
            if left := left_after_kill(StubbornCheckout(Path(folder) / "checkout"), victim, delay):
                problems.append(f"{victim} killed after {delay:.2f} s leaves {left}")
    return problems


def trainings(kills: int, draw: random.Random) -> list[str]:
    """So many launches of one run that really trains, each killed once; what was left of them, or lost."""
    problems, newest = [], 0
    with tempfile.TemporaryDirectory() as folder:
        data, runs = make_small_data(Path(folder) / "data"), Path(folder) / "runs"
        run = RunFolder(runs / RUN)
        words = [*arguments(data, 100_000, 5), *overrides(parallel__tensor=2, checkpoint__keep_last=2)]
        for number in range(1, kills + 1):
            victim, delay, marked = draw.choice([is_launcher, is_real_node]), draw.uniform(0, 9), Marked()
            with launched(words, runs, Path(folder) / f"{number}.log", marked.environment):
                pid = marked.find(victim)
                time.sleep(delay)
                os.kill(pid, signal.SIGKILL)
                killed = time.monotonic()
                while (left := marked.processes()) and time.monotonic() - killed < GONE_SECONDS:
                    time.sleep(0.05)
                marked.kill()
            if left:
                problems.append(f"{victim.__name__} killed after {delay:.2f} s leaves {left}")
            began = {each.launch: each.step for each in read_beginnings(run)}
            if began.get(number, newest) != newest:
                problems.append(f"launch {number} began at {began[number]}, and step {newest} was saved")
            whole = [each for each in list_checkpoints(run.checkpoints) if not inspect(each).problems]
            newest = step_of(whole[0]) if whole else 0
    print(f"{kills} launches on two ranks, each killed: step {newest} is saved")
    return problems


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m tests.torture.orphans")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--trainings", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chosen = random.Random(options.seed)
    found = [*stand_ins(options.rounds, chosen), *trainings(options.trainings, chosen)]
    print(f"{options.rounds} launches with ranks that stand in, each killed; {len(found)} problems")
    sys.exit("\n".join(found) or None)
