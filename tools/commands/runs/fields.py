"""What each key of a run means, and what else it could be: read off the sections' models."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from megatron_patches.configuration.fields import kind_name, section_models
from megatron_patches.run.config import RunConfig
from tools.commands.runs.choices import choices_of
from tools.commands.runs.compare import as_text, name_first


@dataclass(frozen=True)
class KeyLine:
    """A key of a run as `tools/runs show --fields` explains it."""

    key: str
    value: str
    meaning: str
    choices: list[str]
    """what the value can be, where it is one of a few; empty where any number, any text or a truth value will do"""
    other_keys: dict[str, list[str]]
    """of an unset section its keys; of a section whose name decides, by kind, the keys it would have instead"""

    def as_text(self, width: int) -> str:
        """The key and its value, beneath them the rest, wrapped."""
        rest = [self.meaning]
        if self.choices:
            rest.append(f"one of: {', '.join(self.choices)}")
        rest += [f"{whose}: {', '.join(names)}" for whose, names in self.other_keys.items()]
        wrap = textwrap.TextWrapper(
            max(width, 40), initial_indent=" " * 4, subsequent_indent=" " * 4, break_on_hyphens=False
        )
        return "\n".join([f"{self.key} = {self.value}".rstrip(), *map(wrap.fill, rest)])


def explain_keys(config: RunConfig) -> list[KeyLine]:
    """Every resolved key of a run, a section's `name` before what it decides."""
    return list(_explain(config, "", []))


def _explain(section: BaseModel, prefix: str, kinds: list[type[BaseModel]]) -> Iterator[KeyLine]:
    """The keys of a section that could have been of any of these kinds."""
    fields = type(section).model_fields
    choices = {name: choices_of(field) for name, field in fields.items()}
    other_keys: dict[str, dict[str, list[str]]] = {}
    if len(kinds) > 1:
        choices["name"] = [kind_name(kind) for kind in kinds]
        other_keys["name"] = {
            f"with {kind_name(kind)}": _own_keys(kind, kinds) for kind in kinds if kind is not type(section)
        }
    for name in name_first(fields):
        field, value = fields[name], getattr(section, name)
        inner = section_models(field)
        if isinstance(value, BaseModel):
            yield from _explain(value, f"{prefix}{name}.", inner)
        else:
            unset = {"its keys": [each for kind in inner for each in kind.model_fields]} if inner else {}
            others = {whose: keys for whose, keys in (other_keys.get(name) or unset).items() if keys}
            yield KeyLine(f"{prefix}{name}", as_text(value), field.description or "", choices[name], others)


def _own_keys(kind: type[BaseModel], kinds: list[type[BaseModel]]) -> list[str]:
    """Keys of a kind that not all kinds have."""
    shared = set.intersection(*(set(each.model_fields) for each in kinds))
    return [name for name in kind.model_fields if name not in shared]
