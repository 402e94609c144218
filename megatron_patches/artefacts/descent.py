"""What a checkpoint comes from, as its manifest tells it: by itself, also where what lay between has been deleted.
Torch-free.

`parents` has the ids of what it was made from directly. Its facts have the whole way: `branch`, from launch to launch
of its run (`run_id`), and `origin`, what the first of these launches took its weights from, with the way of that.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.foreign.json_text import whole_of

BRANCH = "branch"
"""fact of a checkpoint: its way through the launches, as `[[launch, step at which it began], ...]`, oldest first"""
RUN_ID = "run_id"
"""fact of a checkpoint: id of its run's manifest, which tells two runs of one name apart"""
ORIGIN = "origin"
"""fact of a checkpoint, an import or an export: what its branch began with, as `{"id": ...}` with the facts by which
that one's own descent is known; absent where weights were drawn"""
_CARRIED = ("run", "step", "launch", BRANCH, RUN_ID, ORIGIN)
_STEPS = 10**10
_LAUNCH_DIGITS = 9


@dataclass(frozen=True)
class Position:
    """Where on a run's course a checkpoint was saved."""

    launch: int
    """number of the launch that saved it; 0 for what no launch did, such as an import"""
    step: int


@dataclass(frozen=True)
class Stretch:
    """What a launch saved below a step."""

    run_id: str
    launch: int
    below: int


def number_of_launch(launch: object) -> int:
    """The number in a launch's id as manifests have it; 0 where it is none."""
    is_number = isinstance(launch, str) and launch.isascii() and launch.isdecimal() and len(launch) <= _LAUNCH_DIGITS
    return int(str(launch)) if is_number else 0


def branch_of(facts: Mapping[str, Any]) -> tuple[Position, ...]:
    """A checkpoint's way through the launches: each one's number, and the step at which it began, oldest first.

    Empty for checkpoints of earlier versions, and for those that no launch saved.
    """
    told = facts.get(BRANCH)
    if not isinstance(told, list):
        return ()
    pairs = [pair for pair in told if isinstance(pair, list) and len(pair) == 2]
    found = [Position(number_of_launch(launch), step) for launch, step in pairs if whole_of(step, _STEPS) is not None]
    return tuple(found) if len(found) == len(told) else ()


def as_fact(branch: Sequence[Position]) -> list[JsonValue]:
    """The inverse of `branch_of`."""
    return [[f"{each.launch:04d}", each.step] for each in branch]


def continued(branch: Sequence[Position], launch: int, step: int) -> tuple[Position, ...]:
    """The way of what a launch saves that began at `step`, from a checkpoint of this way."""
    return (*branch, Position(launch, step))


def descent_of_launch(run_id: str | None, launch: int, step: int, source: Manifest | None) -> dict[str, JsonValue]:
    """The facts by which the descent is known of everything that a launch saves.

    Args:
        run_id: of the run's manifest; None where it has none: then nothing is stated.
        step: at which the launch begins.
        source: manifest of the checkpoint that it took its weights from; None where they were drawn.
    """
    if run_id is None:
        return {}
    before: tuple[Position, ...] = ()
    origin: JsonValue = None
    if source is not None and source.facts.get(RUN_ID) == run_id and branch_of(source.facts):
        before, origin = branch_of(source.facts), source.facts.get(ORIGIN)
    elif source is not None:
        origin = origin_of(source)
    facts: dict[str, JsonValue] = {RUN_ID: run_id, BRANCH: as_fact(continued(before, launch, step))}
    return facts | ({ORIGIN: origin} if origin is not None else {})


def origin_of(source: Manifest) -> JsonValue:
    """The fact `origin` of what is made from an artefact."""
    return {"id": source.id, **{name: source.facts[name] for name in _CARRIED if name in source.facts}}


def way_of(facts: Mapping[str, Any]) -> Iterator[Stretch | str]:
    """What a checkpoint came from, as far as its facts tell, the nearest first: stretches of launches, and ids.

    A launch began with the very step that it took, so a stretch before another one ends with that step.
    """
    yield from _stretches(facts, 0)
    origin = facts.get(ORIGIN)
    while isinstance(origin, dict):
        if isinstance(origin.get("id"), str):
            yield origin["id"]
        yield from _stretches(origin, 1)
        origin = origin.get(ORIGIN)


def _stretches(facts: Mapping[str, Any], beyond: int) -> Iterator[Stretch]:
    branch, run_id, step = branch_of(facts), facts.get(RUN_ID), whole_of(facts.get("step"), _STEPS)
    if not isinstance(run_id, str) or step is None:
        return
    ends = [each.step + 1 for each in branch[1:]] + [step + beyond]
    for each, end in zip(reversed(branch), reversed(ends), strict=True) if branch else ():
        yield Stretch(run_id, each.launch, end)
