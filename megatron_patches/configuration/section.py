"""Base class of every section of a run's configuration.

It lives on the lowest floor because `data_config.py` needs it. Strict: a string is not a number, an unknown key is an
error; but 300e9, which YAML has as a float, is a whole number. Frozen: a configuration that was checked stays checked.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """One section of a run's YAML; every field has a description that names its unit."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())

    short_paths: ClassVar[tuple[str, ...]] = ()
    """keys of a path that are no fields: they are short for a section within, and variables are replaced in them too"""

    impossible: ClassVar[Mapping[str, str]] = {}
    """keys that other kinds of the section have and this one cannot, with the reason"""

    @model_validator(mode="before")
    @classmethod
    def _take_whole_floats(cls, values: Any) -> Any:
        """Floats up to 2^53 without a fraction, where a field is a whole number and no float."""
        if not isinstance(values, dict):
            return values
        return {key: int(value) if _is_whole(value) and cls._counts(key) else value for key, value in values.items()}

    @classmethod
    def _counts(cls, key: str) -> bool:
        field = cls.model_fields.get(key)
        kinds = {field.annotation, *get_args(field.annotation)} if field else set()
        return int in kinds and float not in kinds


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer() and abs(value) <= 2**53


def as_list(value: object) -> object:
    """A value alone as a list of one, so that `extend_to: 40` may be written for `extend_to: [40]`."""
    values: list[Any] = value if isinstance(value, list) else [value]
    return [int(each) if _is_whole(each) else each for each in values]


def kind_by_name(value: Any) -> Any:
    """In a section of several kinds a kind's name alone is short for `{name: NAME}`."""
    return {"name": value} if isinstance(value, str) else value


class ExpandsEnvironment:
    """Marks a text field in which `${NAME}` and `${NAME:-default}` are replaced before validation (paths only)."""


def path_field(description: str, default: Any = ...) -> Any:
    """A field holding a path; a relative one is taken from the checkout's root."""
    return Field(default, description=description, min_length=1)


PathText = Annotated[str, ExpandsEnvironment()]
