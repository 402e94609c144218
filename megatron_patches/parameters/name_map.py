"""Names of parameters: theirs and ours, by rules that read both ways.

A rule is a pair of templates, `blocks.{n}.ln1.*` and `layers.{n}.attention_norm.*`: `{n}` is a number, `{n+3}` one
that is larger by 3, `*` a part of the name without dots.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import Field, ValidationError

from megatron_patches.configuration.section import Section
from megatron_patches.configuration.yaml_text import read_yaml
from megatron_patches.errors import TrainyardError

_PLACEHOLDER = re.compile(r"\{([a-z]+)(?:\+(\d+))?\}|(\*)")


@dataclass(frozen=True)
class NameRule:
    """One pair of templates."""

    theirs: str
    ours: str

    def to_ours(self, name: str) -> str | None:
        """Our name of one of theirs, None where the rule does not fit."""
        return _translate(name, self.theirs, self.ours)

    def to_theirs(self, name: str) -> str | None:
        """The way back."""
        return _translate(name, self.ours, self.theirs)


@dataclass(frozen=True)
class NameMap:
    """How another program names and orders what we have."""

    title: str
    """what a manifest says"""
    rules: tuple[NameRule, ...]
    ignored: tuple[str, ...] = ()
    """patterns of theirs that are no parameters, or are not wanted"""
    stacked_query_key_value: bool = False
    """rows of their fused attention matrix are ordered (query, key, value; head; feature), ours (head; q, k, v; ...)"""
    value_before_gate: bool | None = False
    """of their gated MLP's halves the second is activated; None: not known"""
    groups: tuple[tuple[str, ...], ...] = ()
    """patterns of their names in each group of their optimizer, where it saves numbers in place of names"""

    def to_ours(self, name: str) -> str | None:
        """Our name of one of theirs; the first rule that fits counts."""
        return next((found for rule in self.rules if (found := rule.to_ours(name)) is not None), None)

    def to_theirs(self, name: str) -> str | None:
        """Their name of one of ours; the first rule that fits counts."""
        return next((found for rule in self.rules if (found := rule.to_theirs(name)) is not None), None)

    def ignores(self, name: str) -> bool:
        """Whether one of theirs is left out on purpose."""
        return any(fnmatchcase(name, pattern) for pattern in self.ignored)


class OwnNames(NameMap):
    """Our canonical names are theirs."""

    def to_ours(self, name: str) -> str | None:
        return name

    def to_theirs(self, name: str) -> str | None:
        return name


class NameMapFile(Section):
    """A user's YAML."""

    names: dict[str, str] = Field(min_length=1, description="their names and ours, templates with {n} and *")
    ignore: list[str] = Field([], description="patterns of their names that are left out")
    stacked_query_key_value: bool = Field(
        False, description="whether rows of their fused attention matrix are ordered (query, key, value; head; feature)"
    )
    value_before_gate: bool = Field(
        False, description="whether of their gated MLP's halves the second is activated, not the first"
    )
    groups: list[list[str]] = Field(
        [], description="patterns of their names in each group of their optimizer; needed under ZeRO 0 with several"
    )


def read_name_map(path: Path) -> NameMap:
    """The map of a YAML file.

    Raises:
        TrainyardError: the file is missing or has other keys, or a rule's templates do not go together.
    """
    try:
        file = NameMapFile.model_validate(read_yaml(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        known = ", ".join(NameMapFile.model_fields)
        raise TrainyardError(f"{path} is no map of names ({problems}); its keys are {known}") from None
    rules = tuple(NameRule(theirs, ours) for theirs, ours in file.names.items())
    for rule in rules:
        _check_rule(rule, path)
    return NameMap(
        path.name, rules, tuple(file.ignore), file.stacked_query_key_value, file.value_before_gate,
        tuple(map(tuple, file.groups)),
    )  # fmt: skip


def _check_rule(rule: NameRule, path: Path) -> None:
    first, second = (_placeholders(template) for template in (rule.theirs, rule.ours))
    if first != second:
        raise TrainyardError(
            f"{path}: {rule.theirs}: {rule.ours} has other placeholders on one side than on the other; "
            "each {n} and * of one must stand in the other too"
        )


def _placeholders(template: str) -> list[str]:
    return sorted(match[1] or match[3] for match in _PLACEHOLDER.finditer(template))


def _translate(name: str, source: str, target: str) -> str | None:
    match = re.fullmatch(_regular_expression(source), name)
    if match is None:
        return None
    texts, numbers = _values(source, match.groups())
    if any(number < 0 for number in numbers.values()):
        return None
    remaining = iter(texts)
    return _PLACEHOLDER.sub(
        lambda placeholder: (
            next(remaining) if placeholder[3] else str(numbers[placeholder[1]] + int(placeholder[2] or 0))
        ),
        target,
    )


def _regular_expression(template: str) -> str:
    literals = _PLACEHOLDER.split(template)[::4]
    groups = [r"([^.]+)" if placeholder[3] else r"(0|[1-9]\d*)" for placeholder in _PLACEHOLDER.finditer(template)]
    return "".join(part for pair in zip(map(re.escape, literals), [*groups, ""], strict=True) for part in pair)


def _values(template: str, groups: Iterable[str]) -> tuple[list[str], dict[str, int]]:
    """What the placeholders of a template stand for: texts in their order, numbers by name."""
    texts, numbers = [], {}
    for placeholder, value in zip(_PLACEHOLDER.finditer(template), groups, strict=True):
        if placeholder[3]:
            texts.append(value)
        else:
            numbers[placeholder[1]] = int(value) - int(placeholder[2] or 0)
    return texts, numbers
