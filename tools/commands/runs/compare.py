"""Two runs beside each other, key by key as they were resolved."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from megatron_patches.configuration.problems import NEVER_WRITTEN
from megatron_patches.run.config import RunConfig

ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """A key whose value the two runs do not share."""

    key: str
    first: str
    second: str


def compare_runs(first: RunConfig, second: RunConfig) -> list[Difference]:
    """The differences between two runs, in the order of their keys; name, family and why are no settings."""
    left, right = resolved_values(first), resolved_values(second)
    keys = [*left, *(key for key in right if key not in left)]
    return [
        Difference(key, left.get(key, ABSENT), right.get(key, ABSENT))
        for key in keys
        if key not in {*NEVER_WRITTEN, "why"} and left.get(key) != right.get(key)
    ]


def resolved_values(config: RunConfig) -> dict[str, str]:
    """Every dotted key of a run with its value as YAML writes it."""
    return {key: as_text(value) for key, value in _leaves(config.model_dump())}


def as_text(value: object) -> str:
    """A value as a person writes it in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def name_first(keys: Iterable[str]) -> list[str]:
    """The keys of a section, its `name` before those that it decides."""
    return sorted(keys, key=lambda key: key != "name")


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key in name_first(settings):
        value = settings[key]
        if isinstance(value, Mapping) and value:  # an empty one is a value, not a section
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
