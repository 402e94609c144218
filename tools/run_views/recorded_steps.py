"""What the launches of a run recorded of the samples that they read: of each step, those of abandoned branches too."""

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
        if not len(rows):
            return None
        row = int(rows[-1])
        value = int(self.hashes[row]) if self.hashed[row] else None
        return RecordedStep(step, int(self.firsts[row]), int(self.sizes[row]), value)


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
    gathered: dict[str, list[Event]] = {}
    for path in files:
        launch = path.stem.split("-", 1)[0]
        wanted = None if only_step is None else f'"step": {only_step},'.encode()
        with open_plain(path) as file:
            for number, line in lines_in(file, path, ("start", "step"), problems):
                if wanted is None or wanted in line or line.startswith(b'{"kind": "start"'):
                    gathered.setdefault(launch, []).append(parse_event(line, launch, f"{printable(path)}:{number}"))
    if problems:
        raise Damaged(f"{problems[0]}; restore the file or move it away")
    names = sorted((each for each in gathered if number_of_launch(each)), key=lambda name: (len(name), name))
    return [_launch(run, name, gathered[name]) for name in names]


def _launch(run: RunFolder, launch: str, events: list[Event]) -> LaunchSteps:
    starts = [event for event in events if event.kind == "start"]
    if not starts:
        raise Damaged(f"{printable(run.events)}: launch {launch} has steps and no start; restore its file of events")
    layout, version = starts[-1].facts.get("layout"), whole_of(starts[-1].facts.get("delivered_version"))
    rows = np.array([_row(run, event, version) for event in events if event.kind == "step"], dtype=np.uint64).reshape(
        -1, 5
    )
    signed = rows[:, :3].astype(np.int64)
    return LaunchSteps(
        launch, starts[-1].facts["step"], layout if isinstance(layout, dict) else {}, version,
        signed[:, 0], signed[:, 1], signed[:, 2], rows[:, 3], rows[:, 4].astype(bool),
    )  # fmt: skip


def _row(run: RunFolder, event: Event, version: int | None) -> tuple[int, int, int, int, int]:
    """Step, samples before it, its samples, its hash, and whether there is one."""
    facts = event.facts
    samples, size = (whole_of(facts.get(name), _SAMPLES) for name in ("samples", "batch_size"))
    if samples is None or size is None or not 0 < size <= samples:
        raise Damaged(
            f"{printable(run.events)}: step {facts['step']} of launch {event.launch} does not say how many samples it "
            "is of; restore its file of events"
        )
    value = hash_of(facts.get("delivered")) if version == VERSION else None
    return facts["step"], samples - size, size, value or 0, value is not None


def owners(launches: list[LaunchSteps], step: int) -> Iterator[tuple[LaunchSteps, bool]]:
    """Launches that trained a step, newest first, and whether what they trained is still part of the run."""
    present = True
    for launch in reversed(launches):
        if launch.at(step) is not None:
            yield launch, present
        if launch.begins < step:
            present = False
