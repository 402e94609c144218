"""Random histories of a run that trains straight from text: `python -m tests.torture.text_runs --rounds 50`.

Ranks, the process that reads and those that tokenize are killed at any instant, and the run goes on, with other numbers
of ranks and other settings of the loader. No process may be left, each step must have the samples of the run that was
not stopped, and its end the same hash; on one rank throughout, the same weights.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.folders import inspect, list_checkpoints, step_of
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.events.reading import effective, read_events
from megatron_patches.launch.facts import LaunchTarget
from megatron_patches.launch.plan import plan_run
from megatron_patches.run.run_directory import start_launch
from tests.ranks import RankFailed, Ranks
from tests.small_training import SmallData, make_small_data, train_launch
from tests.whole_state import same_state

STEPS = 12
KINDS = ("stream", "{name: windows, overlap: 0.5}", "packs")
HERE = LaunchTarget(nodes=None, gpu=False, gpu_models=())
SECONDS = 120
"""that a launch may take, on a busy machine"""
GONE_SECONDS = 10
RAW = "raw"


def make_raw(data: SmallData) -> None:
    """The documents of the small data in three files of different formats, in a folder."""
    texts = [path.read_text() for path in sorted((data.folder / "documents").iterdir())]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    folder = data.folder / RAW
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(lines[:60]))
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.write("".join(lines[60:130]))
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": texts[130:]}), folder / "c.parquet", row_group_size=20)


def words_of(data: SmallData, samples: str) -> list[str]:
    """A blend of text and a dataset, with another text from step 7 on."""
    text = {"path": str(data.folder / RAW), "shuffle_documents": 9}
    more = {"name": "more", "path": str(data.folder / "more")}
    later = [
        {"name": "raw", "weight": 1, "text": text},
        {"name": "one", "weight": 1, "text": {"path": str(data.folder / RAW / "a.jsonl"), "shuffle_documents": 1}},
    ]
    changes = [{"from_step": 7, "sources": later}]
    return [
        "--data.path=null", f"--data.sources={json.dumps([{**later[0], 'weight': 2}, more])}",
        f"--data.changes={json.dumps(changes)}", f"--data.samples={samples}", "--data.max_epochs=99",
        f"--training.steps={STEPS}", "--checkpoint.every_steps=2", "--evaluation.every_steps=4",
    ]  # fmt: skip


def descendants(pids: list[int]) -> list[int]:
    """All processes below these."""
    children: dict[int, list[int]] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(each.name))
    found, waiting = [], list(pids)
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; what is dead and not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


class History:
    """One run, again and again until it is at its end."""

    def __init__(self, path: Path, runs: Path, words: list[str], draw: random.Random) -> None:
        self.path, self.runs, self.words, self.draw = path, runs, words, draw
        self.run = RunFolder(runs / path.stem)
        self.told: list[str] = []
        self.problems: list[str] = []
        self.alone = True

    def launch(self, kill: bool) -> bool:
        """One launch; whether it came to the run's end."""
        draw = self.draw
        ranks = draw.choice([1, 2]) if kill else 1
        self.alone &= ranks == 1
        layout = draw.choice(["", "tensor", "pipeline"]) if ranks == 2 else ""
        loader = {
            "workers": draw.choice([1, 2]), "prefetch": draw.choice([1, 4, 9]), "persistent": draw.random() < 0.6,
        }  # fmt: skip
        words = [*self.words, f"--parallel.local_processes={ranks}", f"--data.loader={json.dumps(loader)}"]
        words += [f"--parallel.{layout}=2"] if layout else []
        os.environ["TRAINYARD_RUNS"] = str(self.runs)
        started = start_launch(plan_run(self.path, words, HERE).config)
        launched = Ranks(train_launch, ranks, str(started.directory), {"TRAINYARD_RUNS": str(self.runs)})
        victim = draw.choice(["rank 0", "a rank", "reader", "any", "any"]) if kill else "nobody"
        delay = draw.uniform(0, 6)
        self.told.append(f"{ranks} {layout or 'data'} {loader}, {victim} killed after {delay:.2f} s")
        pids = [each.pid for each in launched.processes if each.pid]
        seen = self._disturb(launched, pids, victim, delay)
        ended = self._wait(launched)
        deadline = time.monotonic() + GONE_SECONDS
        while (left := [pid for pid in seen if alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            self.problems.append(f"{self.told[-1]}: processes {left} are left")
        return ended

    def _disturb(self, launched: Ranks, pids: list[int], victim: str, delay: float) -> list[int]:
        """Kills once; the processes below the ranks that were there."""
        deadline = time.monotonic() + delay
        while time.monotonic() < deadline and any(each.is_alive() for each in launched.processes):
            time.sleep(0.02)
        below = descendants(pids)
        if victim == "nobody":
            return below
        among = {"rank 0": pids[:1], "a rank": pids, "reader": below[:1], "any": below}[victim] or pids
        chosen = self.draw.choice(among)
        with suppress(ProcessLookupError):
            os.kill(chosen, signal.SIGKILL)
        if chosen in pids:  # as slurm/launch does
            time.sleep(0.2)
            launched.kill()
        return below

    def _wait(self, launched: Ranks) -> bool:
        try:
            launched.results(SECONDS)
        except RankFailed as failed:
            said = str(failed).strip().splitlines()[-1]
            self.told.append(f"   {said[:200]}")
            if "Error" in said and not any(word in said for word in ("killed by", "Connection", "closed")):
                self.problems.append(f"unexpected: {failed}")
            return False
        except TimeoutError as late:
            self.problems.append(f"{self.told[-1]}: hangs: {late}")
            return False
        return True

    def until_done(self) -> None:
        """Launches that are killed, and a last one that is not."""
        for number in range(8):
            if self.launch(kill=number < 5):
                return
        self.problems.append("it does not come to its end")


def steps_of(run: RunFolder) -> list[tuple[int, str]]:
    """Steps and what was delivered for them."""
    return [(each.facts["step"], each.facts["delivered"]) for each in effective(read_events(run.events), "step")]


def end_of(run: RunFolder) -> Path:
    """The last checkpoint that is whole."""
    return next(each for each in list_checkpoints(run.checkpoints) if not inspect(each).problems)


def differences(straight: RunFolder, other: RunFolder, alone: bool) -> Iterator[str]:
    """What is not as in the run that was not stopped."""
    ours, theirs = steps_of(straight), steps_of(other)
    if ours != theirs:
        yield f"steps differ: {set(ours) ^ set(theirs)}"
    first, second = end_of(straight), end_of(other)
    facts: list[Any] = [read_manifest(each / "manifest.json").facts["delivered"] for each in (first, second)]
    if facts[0] != facts[1] or step_of(second) != STEPS:
        yield f"{second.name} holds {facts[1]}, {first.name} {facts[0]}"
    if alone and not same_state(first, second):
        yield "weights differ"


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.torture.text_runs")
    parser.add_argument("--rounds", type=int, default=10, help="histories")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_small_data(folder / "data")
        make_raw(data)
        path = data.write(folder / "tr900-tests", "tr900a-28K-small")
        straight: dict[str, RunFolder] = {}
        for number in range(options.rounds):
            draw = random.Random(f"{options.seed} {number}")
            samples = draw.choice(KINDS)
            words = words_of(data, samples)
            if samples not in straight:
                whole = History(path, folder / f"straight-{len(straight)}", words, draw)
                assert whole.launch(kill=False), whole.problems
                straight[samples] = whole.run
            history = History(path, folder / f"runs-{number}", words, draw)
            history.until_done()
            problems = history.problems or [*differences(straight[samples], history.run, history.alone)]
            print(f"history {number}, {samples}:", *history.told, *problems, sep="\n  ", flush=True)
            bad += bool(problems)
            shutil.rmtree(folder / f"runs-{number}")
    print(f"{options.rounds} histories, {bad} with problems")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
