"""What the launches of a run recorded of the samples that they read: of each step, those of abandoned branches too."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.samples.delivered import VERSION, hash_of
from megatron_patches.artefacts.descent import number_of_launch
from megatron_patches.artefacts.run_folder import CONFIG, RunFolder
from megatron_patches.errors import Damaged, Missing
from megatron_patches.events.reading import Event, event_files, lines_in, parse_event
from megatron_patches.foreign.files import open_plain
from megatron_patches.foreign.json_text import whole_of
from megatron_patches.foreign.printable import printable
from megatron_patches.run.config import RunConfig
from megatron_patches.run.reading import load_resolved

_SAMPLES = 1 << 53


@dataclass(frozen=True)
class RecordedStep:
    """One step, as its launch recorded it."""

    step: int
    first: int
    """samples that were trained on before it"""
    size: int
    """its global batch"""
    hash: int | None
    """of what was delivered; None where that is not on record"""


@dataclass(frozen=True)
class LaunchSteps:
    """The steps of one launch, in the order in which it trained them."""

    launch: str
    begins: int
    """the step that it went on from"""
    layout: dict[str, Any]
    """as it recorded it, empty where it did not"""
    version: int | None
    """of the formula of its hashes; None where there are none"""
    steps: NDArray[np.int64]
    firsts: NDArray[np.int64]
    """samples that were trained on before each"""
    sizes: NDArray[np.int64]
    """its global batch"""
    hashes: NDArray[np.uint64]
    hashed: NDArray[np.bool_]
    """whether there is a hash that can be compared"""

    def at(self, step: int) -> RecordedStep | None:
        """A step of this launch; None where it has none of this number."""
        [rows] = np.nonzero(self.steps == step)
        return self.row(int(rows[-1])) if len(rows) else None

    def row(self, row: int) -> RecordedStep:
        """One of the steps, by its place among them."""
        value = int(self.hashes[row]) if self.hashed[row] else None
        return RecordedStep(int(self.steps[row]), int(self.firsts[row]), int(self.sizes[row]), value)


def config_of(run: RunFolder, steps: LaunchSteps) -> RunConfig:
    """What a launch was trained with.

    Raises:
        TrainyardError: that cannot be read, or its steps are of more samples than it says.
    """
    path = run.launches / steps.launch / CONFIG
    config = load_resolved(path)
    largest, last = int(steps.sizes.max(initial=0)), int((steps.firsts + steps.sizes).max(initial=0))
    if largest > config.training.global_batch_size or last > config.timetable.end.samples:
        raise Damaged(
            f"{printable(run.events)}: launch {steps.launch} has a step of {largest:,} samples, or one that ends at "
            f"sample {last:,}; {printable(path)} has {config.training.global_batch_size:,} in a step and "
            f"{config.timetable.end.samples:,} in all at most. Restore both files"
        )
    return config


def recorded_launches(run: RunFolder, only_step: int | None = None) -> list[LaunchSteps]:
    """The launches that recorded a beginning, oldest first; rollbacks are among them, without steps.

    Args:
        only_step: other steps are passed over, which is many times faster.

    Raises:
        Damaged: a line is no event, or a step does not say which samples it is of.
        Missing: the run has no events.
    """
    problems: list[str] = []
    files = event_files(run.events, problems)
    if problems:
        raise Missing(f"{problems[0]}; name a run that was trained")
    wanted = None if only_step is None else f'"step": {only_step},'.encode()
    gathered: dict[str, _Gathered] = {}
    for path in files:
        launch = path.stem.split("-", 1)[0]
        with open_plain(path) as file:
            for number, line in lines_in(file, path, ("start", "step"), problems):
                if wanted is None or wanted in line or line.startswith(b'{"kind": "start"'):
                    origin = f"{printable(path)}:{number}"
                    gathered.setdefault(launch, _Gathered()).add(parse_event(line, launch, origin), origin)
    if problems:
        raise Damaged(f"{problems[0]}; restore the file or move it away")
    names = sorted((each for each in gathered if number_of_launch(each)), key=lambda name: (len(name), name))
    return [gathered[name].launch(run, name) for name in names]


class _Gathered:
    """Events of one launch, as they are read: a long run has a million, so no object is kept for each."""

    def __init__(self) -> None:
        self._start: dict[str, Any] | None = None
        self._rows = array("Q")
        """of each step its number, samples before it, its samples, its hash, and whether there is one"""

    def add(self, event: Event, origin: str) -> None:
        """Raises Damaged where a step does not say which samples it is of; `origin` is where it stands."""
        facts = event.facts
        if event.kind == "start":
            self._start = facts
            return
        samples, size = (whole_of(facts.get(name), _SAMPLES) for name in ("samples", "batch_size"))
        if samples is None or size is None or not 0 < size <= samples:
            raise Damaged(
                f"{origin}: step {facts['step']} of launch {event.launch} does not say how many samples it is of; "
                "restore the file"
            )
        value = hash_of(facts.get("delivered"))
        self._rows.extend((facts["step"], samples - size, size, value or 0, value is not None))

    def launch(self, run: RunFolder, launch: str) -> LaunchSteps:
        """What was gathered; raises Damaged where the launch has no start."""
        if self._start is None:
            raise Damaged(
                f"{printable(run.events)}: launch {launch} has steps and no start; restore its file of events"
            )
        layout, version = self._start.get("layout"), whole_of(self._start.get("delivered_version"))
        rows = np.array(self._rows, dtype=np.uint64).reshape(-1, 5)
        signed = rows[:, :3].astype(np.int64)
        return LaunchSteps(
            launch, self._start["step"], layout if isinstance(layout, dict) else {}, version,
            signed[:, 0], signed[:, 1], signed[:, 2], rows[:, 3], rows[:, 4].astype(bool) & (version == VERSION),
        )  # fmt: skip


def owners(launches: list[LaunchSteps], step: int) -> Iterator[tuple[LaunchSteps, bool]]:
    """Launches that trained a step, newest first, and whether what they trained is still part of the run."""
    present = True
    for launch in reversed(launches):
        if launch.at(step) is not None:
            yield launch, present
        if launch.begins < step:
            present = False


def gaps(launches: list[LaunchSteps]) -> list[tuple[int, int]]:
    """First and last of steps that are part of the run and that its launches recorded nothing of: a file of events was
    lost, or a process was killed between a save and its line.
    """
    found: list[tuple[int, int]] = []
    reached: int | None = None
    for launch in reversed(launches):
        # what is part of the run ends where a later launch went on
        last = max(launch.begins, int(launch.steps.max(initial=0))) if reached is None else reached
        own = np.unique(launch.steps[(launch.steps > launch.begins) & (launch.steps <= last)])
        edges = np.concatenate([[launch.begins], own, [last + 1]])
        [rows] = np.nonzero(np.diff(edges) > 1)
        found += [(int(edges[row]) + 1, int(edges[row + 1]) - 1) for row in rows]
        reached = min(launch.begins, last)
    return sorted([*found, *([(1, reached)] if reached else [])])
