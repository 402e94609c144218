"""What is wrong with a configuration, in words that say where and what to do."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from megatron_patches.configuration.fields import kind_name, known_fields, nearest_keys, section_models
from megatron_patches.configuration.megatron_flags import known_as
from megatron_patches.configuration.section import Section
from megatron_patches.foreign.credentials import without_credentials
from megatron_patches.foreign.printable import shortened

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text (put quotes around it)",
    "list_type": "a list",
    "dict_type": "a section with keys of its own",
    "model_type": "a section with keys of its own",
    "model_attributes_type": "a section with keys of its own",
}

_TYPE_WORDS = ("float", "int", "bool", "str")

NEVER_WRITTEN = {"name", "family"}
"""keys of a resolved configuration that follow from where the run's file lies"""


LONGEST = 1500
"""characters of a problem; the longest of ours lists every kind of thing that there is"""


@dataclass(frozen=True)
class Problem:
    """One thing to be put right."""

    key: str
    """dotted key it was found at"""
    text: str
    """what is wrong and what to do, the key included; credentials and what is longer than people read are cut"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", shortened(without_credentials(self.text), LONGEST))


def of_key(problem: Problem, origins: Mapping[str, str]) -> Problem:
    """A problem of one key, headed by the file or command line that the key comes from."""
    return replace(problem, text=f"{_origin(problem.key, origins)}: {problem.text}")


def of_whole(problem: Problem, origins: Mapping[str, str], whole: str) -> Problem:
    """A problem between keys: the run is to blame, and where the key that stands for it is from."""
    return replace(problem, text=f"{whole}: {problem.text}{_inherited(problem.key, origins)}")


def _inherited(key: str, origins: Mapping[str, str]) -> str:
    origin = origins.get(key, origins[""])
    return "" if origin == origins[""] else f" ({key} is from {origin})"


def _origin(key: str, origins: Mapping[str, str]) -> str:
    while key not in origins:
        key = key[: key.rindex("[")] if key.endswith("]") else key.rpartition(".")[0]
    return origins[key]


def explain(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """The problems that validating `model` found, one for each key."""
    complaints: dict[str, list[ErrorDetails]] = {}
    for details in error.errors():
        complaints.setdefault(_locate(details["loc"], model)[0], []).append(details)
    return [_explain(details, model) for details in complaints.values()]


def _explain(complaints: list[ErrorDetails], model: type[BaseModel]) -> Problem:
    """One key's problem; a value that may be of several types has a complaint of each."""
    details = complaints[0]
    key, field, owner = _locate(details["loc"], model)
    meaning = f" ({field.description})" if field and field.description else ""
    kind = details["type"]
    if kind == "extra_forbidden":
        return Problem(key, _unknown(key, model, owner))
    if kind == "missing":
        named = owner is not model and "name" in owner.model_fields
        inherits = "; a section that changes its name inherits none of its keys" if named else ""
        return Problem(_section(key), f"{key} is missing{meaning}{inherits}")
    if details["input"] is None and field is not None and field.is_required():
        return Problem(
            key, f"{key} is required{meaning}: null means back to the default, and it has none; give it a value"
        )
    if kind == "union_tag_not_found":
        return Problem(key, f"{key}.name is missing; it is one of {', '.join(_names(field))}")
    if kind == "union_tag_invalid":
        tag = shortened(json.dumps(details["input"]["name"], default=str))
        return Problem(f"{key}.name", f"{key}.name: {tag} is not known; it is one of {', '.join(_names(field))}")
    if kind == "value_error":
        return Problem(key, f"{key}: {details['ctx']['error']}")
    if kind in ("string_too_short", "too_short"):
        return Problem(key, f"{key} is empty{meaning}")
    if kind == "string_too_long":
        most, text = details["ctx"]["max_length"], details["input"]
        return Problem(key, f"{key} has {len(text)} characters, and may have {most}: {shortened(text)}{meaning}")
    expected = " or ".join(
        _EXPECTED.get(each["type"], each["msg"].removeprefix("Input should be ")) for each in complaints
    )
    return Problem(key, f"{key}: {shortened(json.dumps(details['input'], default=str))} is not {expected}{meaning}")


def _locate(location: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, FieldInfo | None, type[BaseModel]]:
    """Dotted key, field (None where the key is unknown) and owning model of pydantic's location.

    In a section with several models pydantic puts the chosen one's name behind the section's: `optimizer`, `adamw`;
    behind a value that may be of several types it puts the type: `init_std`, `float`; behind a list the number of the
    one that is meant.
    """
    keys: list[str] = []
    field: FieldInfo | None = None
    owner = model
    choices: list[type[BaseModel]] = [model]
    for part in location:
        if isinstance(part, int) and keys:  # one section of a list
            keys[-1] += f"[{part}]"
            continue
        word = str(part)
        named = [choice for choice in choices if len(choices) > 1 and kind_name(choice) == word]
        if named:
            choices = named
            continue
        if field is not None and (word in _TYPE_WORDS or word.startswith("literal[")):
            continue
        owner = choices[0] if choices else owner
        keys.append(word)
        field = owner.model_fields.get(word)
        choices = section_models(field) if field else []
    return ".".join(keys), field, owner


def _names(field: FieldInfo | None) -> list[str]:
    return [kind_name(model) for model in section_models(field)] if field else []


def _section(key: str) -> str:
    return key.rpartition(".")[0]


def _unknown(key: str, model: type[BaseModel], owner: type[BaseModel]) -> str:
    known = [known_key for known_key, _ in known_fields(model) if known_key not in NEVER_WRITTEN]
    if key in known:
        section = _section(key)
        named = f"{section}.name {kind_name(owner)}"
        if issubclass(owner, Section) and (reason := owner.impossible.get(key.rpartition(".")[2])):
            return f"{key} does not go with {named}: {reason}; remove it"
        return f"{key} has no effect: {named} has no such key; remove it"
    section = _section(key)
    here = {f"{section}.{name}" if section else name for name in owner.model_fields} - NEVER_WRITTEN
    candidates = [candidate for candidate in known if candidate in here or _section(candidate) != section]
    nearest = nearest_keys(key, candidates)
    meaning = known_as(key.rpartition(".")[2])
    if meaning and not (nearest and nearest[0].rpartition(".")[2] == key.rpartition(".")[2]):
        return f"{key} is Megatron's: {meaning.replace('--', '')}"
    if nearest:
        return f"{key} is not a known key; nearest: {' or '.join(nearest)}"
    return f"{key} is not a known key; known here: {', '.join(sorted(here))}"
