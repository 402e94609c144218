"""Runs beside each other, key by key as they were resolved."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

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
    rows = differing([resolved_values(first), resolved_values(second)])
    return [Difference(key, *(ABSENT if value is None else value for value in values)) for key, values in rows]


def differing(settings: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str | None]]]:
    """The keys whose values several runs do not share, each with every run's value; None where a run lacks the key."""
    keys = dict.fromkeys(key for each in settings for key in each if key not in {*NEVER_WRITTEN, "why"})
    rows = [(key, [each.get(key) for each in settings]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def resolved_values(config: RunConfig) -> dict[str, str]:
    """Every dotted key of a run with its value as YAML writes it."""
    return settings_of(config.model_dump())


def settings_of(resolved: Mapping[str, Any]) -> dict[str, str]:
    """The same of a configuration as it is written down."""
    return {key: as_text(value) for key, value in _leaves(resolved)}


def as_text(value: object) -> str:
    """A value as a person writes it in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and any(isinstance(each, BaseModel | dict) for each in value):
        return f"[{', '.join(map(_section_as_text, value))}]"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _section_as_text(section: object) -> str:
    settings = section.model_dump() if isinstance(section, BaseModel) else section
    if not isinstance(settings, dict):
        return as_text(settings)
    return f"{{{', '.join(f'{key}: {as_text(each)}' for key, each in settings.items())}}}"


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
