"""The keys that a configuration may have, read off the sections' models."""

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from megatron_patches.configuration.kinds import Kinds
from megatron_patches.configuration.section import ExpandsEnvironment, Section

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^${}]*))?\}")


def known_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every dotted key, a section before its own; of a section with several models (`optimizer`), all of theirs."""
    for name, field in model.model_fields.items():
        yield prefix + name, field
        for section in section_models(field):
            yield from known_fields(section, f"{prefix}{name}.")


def section_models(field: FieldInfo) -> list[type[BaseModel]]:
    """The models that a field's value may have: none for a plain value, several where a name decides."""
    for mark in field.metadata:
        if isinstance(mark, Kinds):
            return mark.models()
    candidates = [field.annotation, *get_args(field.annotation)]  # `Section | None`, `list[Section]`
    return [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]


def default_kind(field: FieldInfo) -> str | None:
    """The name that a section without one has: what its kinds say, else that of the field's default."""
    said = [mark.default for mark in field.metadata if isinstance(mark, Kinds)]
    return said[0] if said else getattr(field.default, "name", None)


def kind_name(model: type[BaseModel]) -> str:
    """What the `name` of a section must be for it to be of this kind."""
    value: Any = get_args(model.model_fields["name"].annotation)[0]
    return str(value)


def nearest_keys(key: str, candidates: list[str]) -> list[str]:
    """The known keys that a wrong key most likely meant: the same last word elsewhere, else a similar spelling."""
    word = key.rpartition(".")[2]
    elsewhere = [candidate for candidate in candidates if candidate.rpartition(".")[2] == word]
    if elsewhere:
        return elsewhere
    section = key.rpartition(".")[0]
    siblings = [candidate for candidate in candidates if candidate.rpartition(".")[0] == section]
    for among in (siblings, candidates):
        last_parts = {candidate.rpartition(".")[2]: candidate for candidate in among}
        similar = difflib.get_close_matches(word, list(last_parts), n=1, cutoff=0.6)
        if similar:
            return [last_parts[similar[0]]]
    return []


def expand_environment(
    model: type[BaseModel], settings: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings with `${NAME}` and `${NAME:-default}` replaced in fields that are paths, and what failed by key."""
    expanded = copy.deepcopy(dict(settings))
    complaints: dict[str, str] = {}
    for key in _paths(model):
        *sections, name = key.split(".")
        for inner in _sections_at(expanded, sections):
            if isinstance(inner.get(name), str):
                inner[name], complaint = _expand(inner[name], environment)
                if complaint:
                    complaints[key] = f"{key}: {complaint}"
    return expanded, complaints


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys in which variables are replaced, also those of a shorthand that is no field."""
    for name, field in model.model_fields.items():
        if _expands(field):
            yield prefix + name
        for section in section_models(field):
            yield from _paths(section, f"{prefix}{name}.")
    if issubclass(model, Section):
        yield from (prefix + name for name in model.short_paths)


def _sections_at(settings: Any, path: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The settings of every section at a path of keys: several where one on the way is a list of sections."""
    if isinstance(settings, list):
        for each in settings:
            yield from _sections_at(each, path)
    elif isinstance(settings, dict):
        if path:
            yield from _sections_at(settings.get(path[0]), path[1:])
        else:
            yield settings


def _expands(field: FieldInfo) -> bool:
    of_parts = (mark for part in get_args(field.annotation) for mark in getattr(part, "__metadata__", ()))
    return any(isinstance(mark, ExpandsEnvironment) for mark in (*field.metadata, *of_parts))


def _expand(text: str, environment: Mapping[str, str]) -> tuple[str, str]:
    found = list(_VARIABLE.finditer(text))
    missing = [variable[1] for variable in found if variable[2] is None and not environment.get(variable[1])]
    if missing:
        return text, f"{text}: the variable {missing[0]} is not set; export {missing[0]}=... before launching"
    if "$" in _VARIABLE.sub("", text):
        return text, f"{text}: of variables only ${{NAME}} and ${{NAME:-default}} are understood"
    return _VARIABLE.sub(lambda variable: environment.get(variable[1]) or variable[2], text), ""
