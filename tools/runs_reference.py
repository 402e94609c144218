"""Every key that a run may have, with its default, what it can be and what it means: no run is needed for it."""

import difflib
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo

from data_tools.errors import TrainyardError
from megatron_patches.config import RunConfig
from megatron_patches.configuration.fields import kind_name, nearest_keys, section_models
from megatron_patches.configuration.problems import NEVER_WRITTEN
from tools.runs_compare import as_text, name_first

_PLAIN = {float: "a number", int: "a whole number", str: "text", bool: "true or false", NoneType: "null"}


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
    kind = kind_name(model) if "name" in fields else None
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
    return KeyReference(key, required, default, _can_be(field), field.description or "")


def _can_be(field: FieldInfo) -> str:
    """Types, choices and limits, in words."""
    models = section_models(field)
    words = []
    if models:
        kinds = ", ".join(kind_name(model) for model in models) if len(models) > 1 else ""
        words.append(f"a section, with name: {kinds}" if kinds else "a section")
    union = get_origin(field.annotation) in {Union, UnionType}
    parts = [part for part in (get_args(field.annotation) if union else [field.annotation]) if part not in models]
    words += [_limited(part, [] if part is NoneType else field.metadata) for part in parts]
    return ", or ".join(words)


def _limited(annotation: Any, marks: Sequence[object]) -> str:
    limits = [limit for mark in marks if (limit := _limit(mark))]
    return f"{_type(annotation)} {', '.join(limits)}".strip()


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ("one of: " if len(inner) > 1 else "") + ", ".join(as_text(value) for value in inner)
    if origin is Annotated:
        return _limited(inner[0], [mark for field in inner[1:] for mark in field.metadata])
    if origin is list:
        return f"a list, each entry {_type(inner[0])}"
    if origin is dict:
        return f"a mapping of {_type(inner[0])} to {_type(inner[1])}"
    return _PLAIN.get(annotation, str(annotation))


def _limit(mark: object) -> str:
    match mark:
        case Gt(gt=number):
            return f"above {as_text(number)}"
        case Ge(ge=number):
            return f"from {as_text(number)}"
        case Lt(lt=number):
            return f"below {as_text(number)}"
        case Le(le=number):
            return f"up to {as_text(number)}"
        case MinLen():
            return "that is not empty"
    return ""


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
