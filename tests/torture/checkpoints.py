"""Random faults over saving, loading and retention: `python -m tests.torture.checkpoints --rounds 300`.

Each round starts ranks that load the newest whole checkpoint and save some steps, and something goes wrong: a kill at
any instant, a full disk, a rename that fails, damage to files afterwards. An onlooker (`oracle.py`) says before and
after each round what is whole; a silent loss is any of: a state loaded that is not its step's, damage that was not
reported, a checkpoint older than the newest whole one loaded, a whole checkpoint gone that the rules keep.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.ranks import RankFailed, Ranks
from tests.torture.checkpoint_worker import Report, Trial, describe, run_trial
from tests.torture.damage import DAMAGES
from tests.torture.oracle import Seen, look

RULES = (
    {"every_steps": 3, "ephemeral_every_steps": 1},
    {"every_steps": 3, "ephemeral_every_steps": 1, "keep_last": 1},
    {"every_steps": 3, "ephemeral_every_steps": 1, "keep_last": 2, "keep_best": 1},
    {"every_steps": 3, "ephemeral_every_steps": 1, "keep_last": 1, "asynchronous": False},
)
INSIDE = ("disk full", "rename fails", "killed while deleting")
FAULTS = ("killed", "killed while loading", *INSIDE, *DAMAGES)


@dataclass
class Tally:
    """What happened under one kind of fault."""

    rounds: int = 0
    saved: int = 0
    """checkpoints that are whole afterwards and were not there before"""
    removed: int = 0
    """by the rules, in rounds that came to their end"""
    fell_back: int = 0
    """rounds in which a damaged checkpoint was reported and an older one taken"""
    refused: int = 0
    """rounds that did not start because all checkpoints were damaged"""
    ended: int = 0
    """rounds that a fault ended before their last step"""
    silent: list[str] = field(default_factory=list)


def torture(rounds: int, seed: int, world_size: int = 2) -> dict[str, Tally]:
    """So many rounds in a folder of their own; the tallies by kind of fault."""
    draw = random.Random(seed)
    tallies: dict[str, Tally] = defaultdict(Tally)
    with tempfile.TemporaryDirectory() as place:
        checkpoints = Path(place) / "checkpoints"
        kinds = [FAULTS[number % len(FAULTS)] for number in range(rounds)]
        draw.shuffle(kinds)
        for fault in kinds:
            tallies[fault].rounds += 1
            _round(checkpoints, fault, draw, world_size, tallies[fault])
    return dict(tallies)


def _round(checkpoints: Path, fault: str, draw: random.Random, world_size: int, tally: Tally) -> None:
    if fault in DAMAGES and look(checkpoints).whole:
        damage_some(checkpoints, fault, draw)
    before = look(checkpoints)
    trial = Trial(
        checkpoints=str(checkpoints),
        rules=draw.choice(RULES),
        steps=draw.randint(2, 6),
        fault=fault if fault in INSIDE else None,
        fault_rank=0 if fault == "killed while deleting" else draw.randrange(world_size),
        fault_after=draw.randrange(90_000) if fault == "disk full" else draw.randrange(4),
    )
    if fault == "killed while deleting":
        trial = Trial(**{**vars(trial), "rules": RULES[1], "steps": 5})
    report, error = _start(trial, fault, draw, world_size)
    if error and "SILENT LOSS" in error:
        tally.silent.append(f"{error.splitlines()[-1]} ({describe(trial)})")
    after = look(checkpoints)
    tally.silent += complaints(before, after, report, error, trial)
    if error and "all " in error and "are damaged" in error:
        tally.refused += 1
        shutil.rmtree(checkpoints)  # as a person would who has no copy
    tally.ended += report is None
    tally.saved += len(after.whole.keys() - before.whole.keys())
    if report is not None:
        tally.removed += report.removed
        tally.fell_back += bool(report.damaged)


def damage_some(checkpoints: Path, fault: str, draw: random.Random) -> None:
    """The newest one, often some more, seldom all."""
    folders = [folder for _, folder in sorted(look(checkpoints).whole.items(), reverse=True)]
    count = 1 if draw.random() < 0.6 else draw.randint(1, max(1, len(folders) - draw.randint(0, 3)))
    for folder in folders[:count]:
        DAMAGES[fault](folder, draw)


def _start(trial: Trial, fault: str, draw: random.Random, world_size: int) -> tuple[Report | None, str | None]:
    """Rank 0's report, or what ended the ranks."""
    loading = Path(trial.checkpoints).parent / "loading"
    loading.unlink(missing_ok=True)
    ranks = Ranks(run_trial, world_size, trial)
    try:
        if fault.startswith("killed") and fault not in INSIDE:
            deadline = time.monotonic() + 30
            while not loading.exists() and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.02 if fault == "killed while loading" else 0.3))
            ranks.processes[draw.randrange(world_size)].kill()
            if draw.random() < 0.5:  # the others live on for a while, as on another node
                time.sleep(draw.uniform(0, 0.05))
        reports = ranks.results(timeout=60)
        return reports[0], None
    except RankFailed as error:
        return None, str(error)
    finally:
        ranks.kill()


def complaints(before: Seen, after: Seen, report: Report | None, error: str | None, trial: Trial) -> list[str]:
    """What a user would not have been told."""
    found = []
    if report is not None:
        newer_damaged = sorted((step for step in before.damaged if step > before.newest_whole), reverse=True)
        if report.loaded != before.newest_whole:
            found.append(f"loaded step {report.loaded}, the newest whole one was {before.newest_whole}")
        if report.damaged != newer_damaged:
            found.append(f"reported {report.damaged} as damaged, {newer_damaged} were")
        if report.saved and after.newest_whole != report.saved[-1]:
            found.append(f"said to have saved step {report.saved[-1]}, the newest whole one is {after.newest_whole}")
    if before.whole and after.newest_whole < before.newest_whole:
        found.append(f"step {before.newest_whole} was whole and is gone; the newest whole one is {after.newest_whole}")
    if error is None and report is None:
        found.append("ended without a word")
    return [f"{text} ({describe(trial)})" for text in found]


def table(tallies: dict[str, Tally]) -> str:
    """One line for each kind of fault, and their sum."""
    columns = ("rounds", "new ones", "removed", "fell back", "refused", "ended early", "silent losses")
    lines = [f"{'fault':<22}" + "".join(f"{column:>15}" for column in columns)]
    total: Counter[int] = Counter()
    for fault, tally in tallies.items():
        numbers = (
            tally.rounds, tally.saved, tally.removed, tally.fell_back, tally.refused, tally.ended, len(tally.silent)
        )  # fmt: skip
        total.update(dict(enumerate(numbers)))
        lines.append(f"{fault:<22}" + "".join(f"{number:>15}" for number in numbers))
    lines.append(f"{'all':<22}" + "".join(f"{total[place]:>15}" for place in range(len(columns))))
    return "\n".join(lines)


def main() -> int:
    """The command line: 1 if anything was lost silently."""
    parser = argparse.ArgumentParser("python -m tests.torture.checkpoints")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    tallies = torture(options.rounds, options.seed)
    print(table(tallies))
    print(f"{options.rounds} rounds, seed {options.seed}, {time.monotonic() - started:.0f} s")
    silent = [text for tally in tallies.values() for text in tally.silent]
    print("\n".join(silent), end="\n" if silent else "")
    return int(bool(silent))


if __name__ == "__main__":
    sys.exit(main())
