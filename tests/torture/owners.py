"""Random starts, kills and pauses of launches of one run: `python -m tests.torture.owners --rounds 50`.

A round is fifty events on small processes that claim, beat, "train" by counting, and "save" by a file named for its
step, under the rules of a real launch. After it no two may have gone on side by side, and no save may have been missed
by a launch that began later.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from megatron_patches.artefacts.branch import Beginning, record_beginning
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Refused
from megatron_patches.run.ownership import TIMEOUT, claim_launch, has_begun, later_launches
from slurm import heartbeat
from slurm.heartbeat import ENDED, Heartbeat, this_process

EVENTS = 50
STEPS = 400
SAVE_EVERY = 5
REFUSED, YIELDED, SAVED_AND_YIELDED = 2, 3, 4
"""exit codes of a small launch; 0 is the end of its steps"""


@dataclass
class Told:
    """What rounds came to."""

    ended: int = 0
    """launches that came to their last step"""
    refused: int = 0
    taken_over: int = 0
    """launches that found a later one"""
    killed: int = 0
    problems: list[str] = field(default_factory=list)


def train(run: RunFolder, journal: Path, number: int) -> None:
    """One small launch, in a process of its own; each seems to be on another machine, so that the heartbeat decides."""
    heartbeat.SECONDS_BETWEEN_BEATS = 0.01
    os.environ[TIMEOUT] = "0.1"  # so short that, on a busy machine, living ones are taken over too
    try:
        launch = claim_launch(run, {}, {**this_process(), "boot": f"machine {number}"})
    except Refused:
        os._exit(REFUSED)
    saves = run.path / "saves"
    saves.mkdir(exist_ok=True)
    step = max((int(path.name) for path in saves.iterdir()), default=0)
    record_beginning(launch, Beginning(int(launch.name), step, None))
    beating, own = Heartbeat(launch), os.open(journal, os.O_WRONLY | os.O_APPEND)
    for _ in range(STEPS):
        time.sleep(0.002)
        beating.beat()
        later = later_launches(launch)
        if any(has_begun(each) for each in later):
            os._exit(YIELDED)
        step += 1
        os.write(own, f"{launch.name} {step}\n".encode())
        if later or step % SAVE_EVERY == 0:
            (saves / str(step)).touch()
        if later:
            os._exit(SAVED_AND_YIELDED)
    (launch / ENDED).write_text('{"code": 0}\n')
    os._exit(0)


def one_round(folder: Path, draw: random.Random, told: Told) -> None:
    """Fifty events in a folder of their own."""
    run, journal = RunFolder(folder / "run"), folder / "journal"
    journal.touch()
    processes: list[BaseProcess] = []
    paused: list[int] = []
    for number in range(EVENTS):
        living = [each.pid for each in processes if each.is_alive() and each.pid and each.pid not in paused]
        match draw.choice(["start", "start", "start", "kill", "pause", "pause", "continue"]):
            case "start":
                process = multiprocessing.get_context("fork").Process(target=train, args=(run, journal, number))
                process.start()
                processes.append(process)
            case "kill" if living:
                os.kill(draw.choice(living), signal.SIGKILL)
            case "pause" if living:
                paused.append(draw.choice(living))
                os.kill(paused[-1], signal.SIGSTOP)
            case "continue" if paused:
                go_on(paused.pop(draw.randrange(len(paused))))
        time.sleep(draw.random() * 0.06)
    for pid in paused:
        go_on(pid)
    for process in processes:
        process.join(30)
        if process.is_alive():
            told.problems.append("a launch does not end")
            process.kill()
            process.join()
    codes = Counter(process.exitcode for process in processes)
    told.ended += codes[0]
    told.refused += codes[REFUSED]
    told.taken_over += codes[YIELDED] + codes[SAVED_AND_YIELDED]
    told.killed += codes[-signal.SIGKILL]
    told.problems += _problems(run, [(int(a), int(b)) for a, b in map(str.split, journal.read_text().splitlines())])


def go_on(pid: int) -> None:
    """End a pause; the process may have ended before that began."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _problems(run: RunFolder, steps: list[tuple[int, int]]) -> list[str]:
    """What the journal, launch and step in the order of time, and the folder tell of two owners and of lost saves."""
    problems = []
    # one that was taken over may count once more before it looks; after that the later one alone goes on
    stale: Counter[int] = Counter()
    newest = 0
    for launch, _ in steps:
        newest = max(newest, launch)
        stale[launch] += launch < newest
    problems += [f"launch {launch} went on beside a later one" for launch, count in stale.items() if count > 1]
    saves = run.path / "saves"
    saved = {int(path.name) for path in saves.iterdir()} if saves.exists() else set()
    reached = 0
    for folder in sorted(run.launches.iterdir()) if run.launches.exists() else []:
        if not has_begun(folder):
            continue
        step = json.loads((folder / "began.json").read_text())["step"]
        if step and step not in saved:
            problems.append(f"launch {folder.name} went on from what was never saved")
        if step < reached - SAVE_EVERY:
            problems.append(
                f"launch {folder.name} began at {step}, and step {reached} had been trained: a save is lost"
            )
        # one that stood still before it wrote down where it begins may do so late, and then trains nothing
        reached = max((own for launch, own in steps if launch == int(folder.name)), default=reached)
    return problems


def torture(rounds: int, seed: int) -> Told:
    """So many rounds."""
    told = Told()
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            one_round(Path(folder), random.Random(seed + number), told)
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m tests.torture.owners")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1000)
    options = parser.parse_args()
    result = torture(options.rounds, options.seed)
    print(
        f"{options.rounds} rounds of {EVENTS} events: {result.ended} launches ended, {result.refused} were refused, "
        f"{result.taken_over} were taken over, {result.killed} were killed; {len(result.problems)} problems"
    )
    sys.exit("\n".join(result.problems) or None)
