"""What a key can be, in words, read off its type and limits."""

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from megatron_patches.configuration.fields import kind_name, section_models
from tools.commands.runs.compare import as_text

PLAIN = {float: "a number", int: "a whole number", str: "text", bool: "true or false", NoneType: "null"}


def choices_of(field: FieldInfo) -> list[str]:
    """The values of a key that is one of a few, and what else it may be; nothing of one that is not."""
    alternatives = _alternatives(field)
    named = [as_text(value) for part in alternatives if get_origin(part) is Literal for value in get_args(part)]
    if not named:
        return []
    plain = [PLAIN[part] for part in alternatives if part in PLAIN and part is not NoneType]
    return [*plain, *named, *["null"] * (NoneType in alternatives)]


def can_be(field: FieldInfo) -> str:
    """Types, choices and limits, in words."""
    models = [model for model in section_models(field) if set(model.__mro__) & set(_alternatives(field))]
    choices = []
    if models:
        kinds = ", ".join(kind_name(model) for model in models) if len(models) > 1 else ""
        choices.append(f"a section, with name: {kinds}" if kinds else "a section")
    bases = {base for model in models for base in model.__mro__}  # of registered kinds the field names the base
    parts = [part for part in _alternatives(field) if part not in bases]
    choices += [_limited(part, [] if part is NoneType else field.metadata) for part in parts]
    return ", or ".join(choices)


def _limited(annotation: Any, marks: Sequence[object]) -> str:
    limits = [limit for mark in marks if (limit := _limit(mark))]
    return f"{_type(annotation)} {', '.join(limits)}".strip()


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ("one of: " if len(inner) > 1 else "") + ", ".join(as_text(value) for value in inner)
    if origin is Annotated:
        marks = ([*each.metadata] if isinstance(each, FieldInfo) else [each] for each in inner[1:])
        return _limited(inner[0], [mark for several in marks for mark in several])
    if origin is list:
        return f"a list, each entry {_type(inner[0])}"
    if origin is dict:
        return f"a mapping of {_type(inner[0])} to {_type(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a section"
    return PLAIN.get(annotation, str(annotation))


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


def _alternatives(field: FieldInfo) -> list[Any]:
    """The types of which a value has one."""
    union = get_origin(field.annotation) in {Union, UnionType}
    return list(get_args(field.annotation)) if union else [field.annotation]
