"""Random starts, kills, pauses and takeovers of a small run, by processes that own it as launches do.

    python -m tests.torture.ownership --rounds 200

A round takes about 3 s. The small run "trains" by counting, and "saves" by a file named for its step, under the rule of
a real one: not where a later launch has begun.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from megatron_patches.artefacts.branch import Beginning, record_beginning
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.errors import Refused
from megatron_patches.run.ownership import TIMEOUT, claim_launch, has_begun, later_launches
from slurm import heartbeat
from slurm.heartbeat import ENDED, Heartbeat, this_process


def _train(run: RunFolder, journal: Path, number: int) -> None:
    heartbeat.SECONDS_BETWEEN_BEATS = 0.01
    os.environ[TIMEOUT] = "0.25"
    try:
        launch = claim_launch(run, {}, {**this_process(), "boot": f"machine {number}"})
    except Refused:
        os._exit(2)
    saves = run.path / "saves"
    saves.mkdir(exist_ok=True)
    step = max((int(path.name) for path in saves.iterdir()), default=0)
    record_beginning(launch, Beginning(int(launch.name), step, None))
    beating, own = Heartbeat(launch), os.open(journal, os.O_WRONLY | os.O_APPEND)
    for _ in range(400):
        time.sleep(0.002)
        beating.beat()
        later = later_launches(launch)
        if any(has_begun(each) for each in later):
            os._exit(3)
        step += 1
        os.write(own, f"{launch.name} {step}\n".encode())
        if step % 5 == 0:
            (saves / str(step)).touch()
        if later:
            os._exit(4)
    (launch / ENDED).write_text('{"code": 0}\n')
    os._exit(0)


def _send(pid: int | None, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid or 0, number)


def interleave(folder: Path, seed: int, events: int) -> None:
    """So many random events; raises AssertionError where two owners trained on, or a save was lost."""
    draw, run, journal = random.Random(seed), RunFolder(folder / "run"), folder / "journal"
    journal.touch()
    processes: list[multiprocessing.process.BaseProcess] = []
    paused: list[int] = []
    for number in range(events):
        living = [each for each in processes if each.is_alive() and each.pid not in paused]
        match draw.choice(["start", "start", "kill", "pause", "continue"]):
            case "start":
                process = multiprocessing.get_context("fork").Process(target=_train, args=(run, journal, number))
                process.start()
                processes.append(process)
            case "kill" if living:
                _send(draw.choice(living).pid, signal.SIGKILL)
            case "pause" if living:
                paused.append(draw.choice(living).pid or 0)
                _send(paused[-1], signal.SIGSTOP)
            case "continue" if paused:
                _send(paused.pop(draw.randrange(len(paused))), signal.SIGCONT)
        time.sleep(draw.random() * 0.06)
    for pid in paused:
        _send(pid, signal.SIGCONT)
    for process in processes:
        process.join(30)
        assert not process.is_alive()
    lines = [line.split() for line in journal.read_text().splitlines()]
    launches = [int(launch) for launch, _ in lines]
    # one that was taken over may count once more before it looks; after that the newer one alone goes on
    stale: dict[int, int] = {}
    newest = 0
    for launch in launches:
        newest = max(newest, launch)
        if launch < newest:
            stale[launch] = stale.get(launch, 0) + 1
    assert max(stale.values(), default=0) <= 1
    # each launch goes on from the newest save that there was when it began
    begun = [each for each in sorted(run.launches.iterdir()) if has_begun(each)]
    saved = {int(path.name) for path in (run.path / "saves").iterdir()} if (run.path / "saves").exists() else set()
    reached = 0
    for launch_folder in begun:
        step = json.loads((launch_folder / "began.json").read_text())["step"]
        assert step == 0 or step in saved
        assert step >= reached - 5, "a save was lost"
        own = [int(step) for launch, step in lines if int(launch) == int(launch_folder.name)]
        reached = max([step, *own])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.torture.ownership")
    parser.add_argument("--rounds", type=int, default=200, help="how many runs of 50 events each")
    rounds = parser.parse_args().rounds
    for seed in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            interleave(Path(folder), seed, events=50)
    print(f"{rounds} rounds: never two owners, no save lost")


if __name__ == "__main__":
    main()
