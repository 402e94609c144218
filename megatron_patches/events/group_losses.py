"""The validation losses that a run is known by: of the group by which its best checkpoint is told."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.chosen import UNNAMED_GROUP
from megatron_patches.events.reading import Event, effective, scan_events
from megatron_patches.foreign.json_text import number_of


@dataclass(frozen=True)
class GroupLosses:
    """Losses on one validation group."""

    group: str | None
    """None where no launch recorded by which it goes"""
    losses: list[tuple[int, float]]
    """steps and nats per target, those that are finite"""


def recorded_group(events: Iterable[Event]) -> str | None:
    """The group by whose loss the newest launch tells the best checkpoint; None where none recorded it."""
    names = [event.facts.get("best_by") for event in events if event.kind == "data"]
    named = [name for name in names if isinstance(name, str)]
    return named[-1] if named else None


def group_of_validation(facts: Mapping[str, Any]) -> str:
    """The group that a validation was of; one that names none is of the only one that there was."""
    name = facts.get("source")
    return name if isinstance(name, str) else UNNAMED_GROUP


def read_group_losses(events: Path, problems: list[str]) -> GroupLosses:
    """The losses of a run on the group that its newest launch goes by. Of launches that recorded no group each step's
    first loss counts: validations were told one after the other, the first group first.
    """
    read, unread = scan_events(events, ("start", "validation", "data"))
    problems += unread
    group = recorded_group(read)
    found: dict[int, Any] = {}
    for event in effective(read, "validation"):
        if group is None or group_of_validation(event.facts) == group:
            found.setdefault(event.facts["step"], event.facts.get("loss"))
    return GroupLosses(
        group, [(step, number) for step, loss in found.items() if (number := number_of(loss)) is not None]
    )
