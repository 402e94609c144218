"""Every key that a run may have, with its default, what it can be and what it means: no run is needed for it."""

import difflib
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_origin

from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo

from megatron_patches.configuration.fields import kind_name, nearest_keys, section_models
from megatron_patches.configuration.problems import NEVER_WRITTEN
from megatron_patches.errors import TrainyardError
from megatron_patches.run.config import RunConfig
from tools.commands.runs.choices import can_be
from tools.commands.runs.compare import as_text, name_first


@dataclass(frozen=True)
class KeyReference:
    """What is to be known of a key before it is written."""

    key: str
    required: bool
    default: Any
    """as YAML has it; None also where the key is required"""
    can_be: str
    meaning: str

    def as_text(self, width: int) -> str:
        """The key and its default, beneath them the rest, wrapped."""
        default = self.default
        if isinstance(default, dict) and default:
            default = default.get("name", "the defaults of its keys")
        head = f"  {self.key}, {'required' if self.required else f'default {as_text(default)}'}"
        return "\n".join([head, _wrapped(self.can_be, 6, width), _wrapped(self.meaning, 6, width)])


@dataclass(frozen=True)
class SectionReference:
    """A section's keys, or those of one of its kinds."""

    heading: str
    meaning: str
    """of a kind, what it is; else empty"""
    keys: list[KeyReference]

    def as_text(self, width: int) -> str:
        """All of it but the heading, wrapped."""
        meaning = [_wrapped(self.meaning, 2, width)] if self.meaning else []
        return "\n".join([*meaning, *(key.as_text(width) for key in self.keys)])

    def as_json(self) -> dict[str, Any]:
        """The same for other programs."""
        return asdict(self)


def reference(beginning: str = "") -> list[SectionReference]:
    """The keys whose dotted names begin so, by section; of a section whose name decides, one block for each kind.

    Raises:
        TrainyardError: no key begins so; the nearest is offered.
    """
    sections = list(_sections(RunConfig, "", "the run"))
    chosen = []
    for section in sections:
        keys = [key for key in section.keys if key.key.startswith(beginning)]
        if keys:
            chosen.append(SectionReference(section.heading, section.meaning, keys))
    if not chosen:
        known = list(dict.fromkeys(key.key for section in sections for key in section.keys))
        nearest = nearest_keys(beginning, known) or difflib.get_close_matches(beginning, known, n=1, cutoff=0.0)
        raise TrainyardError(
            f"no key begins with {beginning}; nearest: {', '.join(nearest)}; `tools/runs fields` shows all"
        )
    return chosen


def _sections(
    model: type[BaseModel], prefix: str, heading: str, if_left_out: str | None = None
) -> Iterator[SectionReference]:
    """A section and those in it; `if_left_out` is the kind that it is of without a name."""
    fields = {
        name: model.model_fields[name] for name in name_first(model.model_fields) if prefix or name not in NEVER_WRITTEN
    }
    # the name of a source is anything, and decides nothing
    kind = kind_name(model) if "name" in fields and get_origin(fields["name"].annotation) is Literal else None
    keys = [_key(prefix + name, field) for name, field in fields.items()]
    if kind is not None and kind == if_left_out:
        keys[0] = replace(keys[0], required=False, default=kind)
    meaning = inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0] if kind else ""
    yield SectionReference(heading, meaning, keys)
    for name, field in fields.items():
        inner, key = section_models(field), prefix + name
        if len(inner) > 1:
            for each in inner:
                yield from _sections(each, f"{key}.", f"{key} with name: {kind_name(each)}", _kind_if_left_out(field))
        elif inner:
            yield from _sections(inner[0], f"{key}.", f"{key}, of {heading}" if kind else key)


def _key(key: str, field: FieldInfo) -> KeyReference:
    required = field.is_required()
    default = None if required else field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        default = default.model_dump()
    return KeyReference(key, required, default, can_be(field), field.description or "")


def _kind_if_left_out(field: FieldInfo) -> str | None:
    """The kind that a section is of which has no `name`; None where that is refused."""
    only_this: dict[str, Any] = {"section": (field.annotation, field)}
    alone = create_model("Alone", **only_this)
    try:
        return kind_name(type(dict(alone.model_validate({"section": {}}))["section"]))
    except ValidationError:
        return None


def _wrapped(text: str, indent: int, width: int) -> str:
    space = " " * indent
    return textwrap.fill(text, max(width, 40), initial_indent=space, subsequent_indent=space, break_on_hyphens=False)
