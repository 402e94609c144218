"""Events read: `events/<launch>-<role>.jsonl`, append-only, one file for each writer and launch. Torch-free.

Files are merged on reading. A launch that started at step s owns every step after s; what earlier launches recorded
of those steps was rolled back. A rollback is a launch too, which starts and trains nothing.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from megatron_patches.errors import Damaged, TrainyardError
from megatron_patches.foreign.files import names_in, open_plain
from megatron_patches.foreign.json_text import number_of, parse_object, whole_of
from megatron_patches.foreign.printable import printable, shortened

STEPS = 10**10
"""steps are below this: a checkpoint's name has ten digits for them"""
_LINE_BYTES = 1 << 22
"""longest line that is read; a profile of 1,000 kinds of work has 100 kB"""
_SKIPPED_BYTES = 1 << 26
"""most that is skipped of a longer one: a sparse file may go on for terabytes"""
TOLD_PER_FILE = 3
"""lines of a file that are no events and are told one by one"""
_AT_A_STEP = {"start", "step", "validation", "checkpoint", "change", "end"}
_TEXTS = {"change": ("key",), "end": ("outcome",), "message": ("text",), "failure": ("text",)}
_MEASURED = {"step", "validation"}
_NUMBERS = {"loss", "seconds", "tokens", "samples"}
"""what views compute with, of events that measure; a profile's `seconds` are a table"""
NOT_FINITE = ("nan", "inf", "-inf")
"""names of numbers that JSON lacks, as EventWriter writes them"""


@dataclass(frozen=True)
class Event:
    """One line of an event file."""

    launch: str
    kind: str
    time: str
    """UTC, ISO 8601"""
    facts: dict[str, Any]


def read_events(folder: Path, kinds: Collection[str] | None = None) -> list[Event]:
    """All events of a run, launch by launch, each file in the order it was written.

    A last line without its end (a process was killed while writing) is left out; any other damage raises.

    Args:
        kinds: only events of these; other lines are not looked at, which is many times faster.

    Raises:
        Damaged: a line that was looked at is no event, or a file cannot be read.
    """
    events, problems = scan_events(folder, kinds)
    if problems:
        raise Damaged(f"{problems[0]}; restore the file or move it away")
    return events


def scan_events(folder: Path, kinds: Collection[str] | None = None) -> tuple[list[Event], list[str]]:
    """The same for a view, which goes on: the events that can be read, and a sentence for each thing that cannot."""
    problems: list[str] = []
    events: list[Event] = []
    for path in event_files(folder, problems):
        try:
            with open_plain(path) as file:
                events += _events_in(file, path, kinds, problems)
        except TrainyardError as error:
            problems.append(str(error))
    # stable: the order within a file is kept; by length first, since 10000 comes after 9999
    return sorted(events, key=lambda event: (len(event.launch), event.launch)), problems


def event_files(folder: Path, problems: list[str], launch: str = "") -> list[Path]:
    """The event files of a run, or of one launch, by name; why the folder cannot be read is added to `problems`."""
    try:
        names = names_in(folder)
    except TrainyardError as error:
        problems.append(str(error))
        return []
    beginning = f"{launch}-" if launch else ""
    return [folder / name for name in names if name.endswith(".jsonl") and name.startswith(beginning)]


def parse_event(line: bytes, launch: str, origin: str) -> Event:
    """One line of an event file.

    Args:
        origin: where the line stands, for errors.

    Raises:
        Damaged: it is no event: no JSON object, no kind, no time, or a step that no run reaches.
    """
    facts = parse_object(line, origin)
    kind, time = facts.pop("kind", None), facts.pop("time", None)
    if not isinstance(kind, str) or not isinstance(time, str):
        raise Damaged(f"{origin} is not an event: it lacks a kind or a time")
    try:
        datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        raise Damaged(f"{origin} is not an event: '{shortened(time, 40)}' is no time") from None
    if (kind in _AT_A_STEP or "step" in facts) and whole_of(facts.get("step"), STEPS) is None:
        raise Damaged(f"{origin} is not an event: {shortened(facts.get('step'), 40)} is no step")
    for name in _TEXTS.get(kind, ()):
        if not isinstance(facts.get(name), str):
            raise Damaged(f"{origin} is not an event: {name} is no text")
    for name in _NUMBERS & facts.keys() if kind in _MEASURED else ():
        if number_of(facts[name]) is None and facts[name] not in NOT_FINITE:
            raise Damaged(f"{origin} is not an event: {name} is no number")
    return Event(launch, kind, time, facts)


def _events_in(file: BinaryIO, path: Path, kinds: Collection[str] | None, problems: list[str]) -> Iterator[Event]:
    launch = path.stem.split("-", 1)[0]
    bad = 0
    for number, line in lines_in(file, path, kinds, problems):
        try:
            yield parse_event(line, launch, f"{printable(path)}:{number}")
        except Damaged as error:
            bad += 1
            if bad <= TOLD_PER_FILE:
                problems.append(str(error))
    if bad > TOLD_PER_FILE:
        problems.append(f"{printable(path)} has {bad - TOLD_PER_FILE:,} more lines that are no events")


def lines_in(
    file: BinaryIO, path: Path, kinds: Collection[str] | None, problems: list[str]
) -> Iterator[tuple[int, bytes]]:
    """The whole lines of an event file with their numbers, each with its end; those of other kinds are passed over.

    Args:
        problems: gets a sentence for each line that is too long to be an event.
    """
    # as EventWriter begins a line
    beginnings = (b"",) if kinds is None else tuple(f'{{"kind": "{kind}"'.encode() for kind in kinds)
    number = 0
    while line := file.readline(_LINE_BYTES):
        number += 1
        if not line.endswith(b"\n"):
            if len(line) < _LINE_BYTES:
                return
            long = f"{printable(path)}:{number} is not an event: more than {_LINE_BYTES:,} bytes long"
            if file.readline(_SKIPPED_BYTES).endswith(b"\n"):
                problems.append(long)
                continue
            problems.append(f"{long}; what follows it is not read")
            return
        if line.startswith(beginnings):
            yield number, line


def effective(events: list[Event], kind: str) -> list[Event]:
    """Events of a kind that has a step (step, validation, checkpoint), less those that a later launch rolled back."""
    kept: list[Event] = []
    for event in events:
        if event.kind == "start":
            kept = [other for other in kept if other.facts["step"] <= event.facts["step"]]
        if event.kind == kind:
            kept.append(event)
    return kept


def rollbacks(events: list[Event]) -> list[Event]:
    """Where a person took the run back, less what a later launch went back before."""
    return [event for event in effective(events, "start") if event.facts.get("rollback") is True]
