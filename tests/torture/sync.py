"""Random kills and faults over sync, pull, gc, adopt and rebuild: `python -m tests.torture.sync --rounds 200`.

Each round starts one of them in a process of its own, kills it at a random instant (or breaks its copies, fills its
disk, sets a second one beside it), looks at what is left, runs the same again to its end, and compares every byte.
Lost is: content that is nowhere whole any more, or something that claims to be whole and is not.
"""

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.inventory.adoption import adopt
from megatron_patches.artefacts.inventory.artefact import files_folder
from megatron_patches.artefacts.inventory.catalogue import delete_catalogue, open_catalogue
from megatron_patches.artefacts.inventory.copies import read_copies
from megatron_patches.artefacts.inventory.removal import carry_out, plan_removal
from megatron_patches.artefacts.location import Location
from megatron_patches.artefacts.manifest import Manifest, read_manifest, verify_files
from megatron_patches.artefacts.retention import CopiedRetention
from megatron_patches.artefacts.storage import file as file_module
from megatron_patches.artefacts.storage.retrying import Retries
from megatron_patches.errors import TrainyardError
from tests.small_artefacts import RUN, make_checkpoint
from tools.commands.sync_to_hub.items import Choice
from tools.commands.sync_to_hub.pull import Pull, pull
from tools.commands.sync_to_hub.run import Task, push, read_back, remove_copied

STEPS = (100, 200, 300, 400)
FAULTS = ("kill", "kill twice", "two at once", "full disk", "broken copies")


class Round:
    """One yard of four checkpoints that something happens to."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.folder, self.draw = folder, draw
        self.runs, self.remote, self.back = folder / "runs", folder / "remote", folder / "back"
        os.environ["TRAINYARD_CACHE"] = str(folder / "cache")
        self.manifests = [make_checkpoint(self.runs, step, size=200_000) for step in STEPS]
        foreign = folder / "foreign" / "global_step7"
        foreign.mkdir(parents=True)
        for rank in range(4):
            (foreign / f"mp_rank_{rank:02d}_model_states.pt").write_bytes(draw.randbytes(200_000))

    def sync(self, delete: bool = False) -> None:
        """Everything to the remote folder."""
        location = Location("file", str(self.remote / RUN))
        task = Task(self.runs / RUN, location, Choice(), retries=Retries(pause=0.001))
        self.check_lines(list(push(task)))
        if delete:
            self.check_lines(list(read_back(task)))
            self.check_lines(list(remove_copied(task, task.failed)))

    def pull(self) -> None:
        """Everything back into another folder of runs."""
        location = Location("file", str(self.remote / RUN))
        self.check_lines(list(pull(Pull(location, self.back / RUN, retries=Retries(pause=0.001)))))

    def check_lines(self, lines: list[object]) -> None:
        """A problem that was said is not silent: the same again must then succeed."""
        for line in lines:
            if problem := getattr(line, "problem", ""):
                raise TrainyardError(problem)

    def gc(self) -> None:
        """Removes what a copy stands for."""
        with open_catalogue(self.runs, self.folder / "data", thorough=True) as catalogue:
            carry_out(plan_removal(catalogue, self.runs, [RUN], CopiedRetention(keep_last=1)))

    def adopt(self) -> None:
        """A manifest for the foreign folder."""
        adopt(self.folder / "foreign", self.runs / "tr901-foreign")

    def rebuild(self) -> None:
        """The catalogue from nothing."""
        delete_catalogue(self.runs, self.folder / "data")
        with open_catalogue(self.runs, self.folder / "data") as catalogue:
            assert catalogue.problems() == []

    def sync_and_delete(self) -> None:
        """What `--delete-local-after-verify` does."""
        self.sync(delete=True)

    def losses(self) -> list[str]:
        """Content that is nowhere whole, and folders that claim to be whole and are not."""
        found = []
        for place in (self.runs, self.back, self.remote):
            for folder in sorted((place / RUN / "checkpoints").glob("step-??????????")):
                if (folder / "manifest.json").exists():
                    problems = verify_files(read_manifest(folder / "manifest.json"), folder, hashes=True)
                    found += [f"claims to be whole: {problem}" for problem in problems]
        for folder in sorted(self.runs.glob("*/elsewhere/step-??????????-????????")):
            try:
                read_manifest(folder / "manifest.json")
                files_folder(folder)
            except TrainyardError as error:
                found.append(f"claims to be whole: {error}")
        try:
            read_copies(self.runs / RUN)
        except TrainyardError as error:
            found.append(f"what is known of copies is damaged: {error}")
        places = (self.runs / RUN, self.remote / RUN)
        for manifest in self.manifests:
            if not any(self.is_whole(place, manifest) for place in places):
                found.append(f"step {manifest.facts['step']} is nowhere whole")
        return found

    def is_whole(self, place: Path, manifest: Manifest) -> bool:
        """Whether a place holds an artefact, all of it."""
        step = manifest.facts["step"]
        return not verify_files(manifest, place / "checkpoints" / f"step-{step:010d}", hashes=True)


ACTIONS: dict[str, tuple[Callable[[Round], None], Callable[[Round], None]]] = {
    # what is prepared, and what is done under fire
    "sync": (lambda _: None, Round.sync),
    "sync, delete here": (lambda _: None, Round.sync_and_delete),
    "pull": (Round.sync, Round.pull),
    "gc": (Round.sync, Round.gc),
    "adopt": (lambda _: None, Round.adopt),
    "rebuild": (lambda _: None, Round.rebuild),
}


def torture(rounds: int, seed: int) -> tuple[Counter[tuple[str, str, str]], list[str]]:
    """What happened in each round, and everything that was lost."""
    draw = random.Random(seed)
    counted: Counter[tuple[str, str, str]] = Counter()
    lost: list[str] = []
    cache = os.environ.get("TRAINYARD_CACHE")
    try:
        for number in range(rounds):
            action = list(ACTIONS)[number % len(ACTIONS)]
            fault = FAULTS[number // len(ACTIONS) % len(FAULTS)]
            with tempfile.TemporaryDirectory() as temporary:
                what, losses = one_round(Round(Path(temporary), draw), action, fault)
            counted[action, fault, what] += 1
            lost += [f"round {number}, {action}, {fault}: {loss}" for loss in losses]
    finally:
        os.environ.pop("TRAINYARD_CACHE", None)
        if cache is not None:
            os.environ["TRAINYARD_CACHE"] = cache
    return counted, lost


def one_round(yard: Round, action: str, fault: str) -> tuple[str, list[str]]:
    """How the action ended under the fault, and what was lost then or after it was run again."""
    prepare, act = ACTIONS[action]
    prepare(yard)
    started = time.perf_counter()
    whole = Path(f"{yard.folder}-whole")
    shutil.copytree(yard.folder, whole)
    calm = Round.__new__(Round)
    calm.__dict__.update(yard.__dict__ | {"folder": whole, "runs": whole / "runs", "remote": whole / "remote",
                                          "back": whole / "back"})  # fmt: skip
    writes = count_writes(calm, act) if fault == "full disk" else act(calm) or 0
    seconds = time.perf_counter() - started
    shutil.rmtree(whole)
    if fault == "full disk":
        size = yard.draw.choice([0, int(2 ** yard.draw.uniform(0, 18))])
        what = on_full_disk(yard, act, yard.draw.randrange(max(1, writes)), size)
    else:
        what = under_fire(yard, act, fault, seconds)
    losses = yard.losses()
    try:
        act(yard)
        act(yard)
    except TrainyardError as error:
        losses.append(f"the same again does not go on: {error}")
    return what, losses + yard.losses()


def under_fire(yard: Round, act: Callable[[Round], None], fault: str, seconds: float) -> str:
    """Runs the action in processes of its own."""
    if fault == "broken copies":
        return exit_of(break_copies, yard, act, yard.draw.randrange(12))
    context = multiprocessing.get_context("fork")
    number = 2 if fault == "two at once" else 1
    for _ in range(2 if fault == "kill twice" else 1):
        processes = [context.Process(target=run_quietly, args=(yard, act)) for _ in range(number)]
        for process in processes:
            process.start()
        time.sleep(yard.draw.random() * seconds)
        if processes[0].pid and processes[0].is_alive():
            os.kill(processes[0].pid, signal.SIGKILL)
        for process in processes:
            process.join(60)
    codes = {process.exitcode for process in processes}
    return "killed" if -signal.SIGKILL in codes else "went through" if codes == {0} else "said what was wrong"


def run_quietly(yard: Round, act: Callable[[Round], None]) -> None:
    """One process: what it says is its exit code."""
    try:
        act(yard)
    except (TrainyardError, OSError):
        sys.exit(2)


def exit_of(target: Callable[..., None], *arguments: Any) -> str:
    """How a process of its own ended."""
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    process.join(60)
    return {0: "went through", 2: "said what was wrong"}.get(process.exitcode or 0, f"exit code {process.exitcode}")


def on_full_disk(yard: Round, act: Callable[[Round], None], after: int, size: int) -> str:
    """How the action ends where, after so many files, no further byte of any file can be written past a size."""
    return exit_of(fill_disk, yard, act, after, size)


def count_writes(yard: Round, act: Callable[[Round], None]) -> int:
    """How many files the action opens to write into, the catalogue's among them."""
    counted = multiprocessing.get_context("fork").Value("i", 0)

    def run() -> None:
        watch_writes(lambda: setattr(counted, "value", counted.value + 1))
        run_quietly(yard, act)

    exit_of(run)
    return int(counted.value)


def fill_disk(yard: Round, act: Callable[[Round], None], after: int, size: int) -> None:
    """The process in which the disk is full. The kernel refuses the bytes (EFBIG), whoever writes them: Python, SQLite,
    copy_file_range.
    """
    left = [after]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # it would kill; ignored, the write fails
    watch_writes(count)
    run_quietly(yard, act)


def watch_writes(told: Callable[[], None]) -> None:
    """Tells of every file that this process opens to write into, until the process ends."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if opened or (event == "sqlite3.connect" and "mode=ro" not in str(arguments[0])):
            told()

    sys.addaudithook(hook)


def break_copies(yard: Round, act: Callable[[Round], None], after: int) -> None:
    """The process in which the disk garbles what it copies, after so many pieces."""
    real, left = file_module._move, [after]

    def broken(source: int, copy: int, offset: int, size: int) -> int:
        left[0] -= 1
        moved = real(source, copy, offset, size)
        if left[0] < 0 and left[0] % 2:
            os.pwrite(copy, b"garbled", offset)
        return moved

    file_module._move = broken
    run_quietly(yard, act)


def table(counted: Counter[tuple[str, str, str]]) -> str:
    """What happened, one line for each kind of round."""
    lines = [f"{'action':<20}{'fault':<16}{'what happened':<22}rounds"]
    lines += [
        f"{action:<20}{fault:<16}{what:<22}{number:>6}" for (action, fault, what), number in sorted(counted.items())
    ]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    counted, lost = torture(arguments.rounds, arguments.seed)
    print(table(counted))
    print(f"\n{arguments.rounds} rounds in {time.monotonic() - started:.0f} s, {len(lost)} losses")
    print("\n".join(lost))
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
