"""Base class of every section of a run's configuration.

It lives on the lowest floor because `data_config.py` needs it. Strict: a string is not a number, an unknown key is an
error. Frozen: a configuration that was checked stays checked.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """One section of a run's YAML; every field has a description that names its unit."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


def kind_by_name(value: Any) -> Any:
    """In a section of several kinds a kind's name alone is short for `{name: NAME}`."""
    return {"name": value} if isinstance(value, str) else value


class ExpandsEnvironment:
    """Marks a text field in which `${NAME}` and `${NAME:-default}` are replaced before validation (paths only)."""


def path_field(description: str, default: Any = ...) -> Any:
    """A field holding a path; a relative one is taken from the checkout's root."""
    return Field(default, description=description, min_length=1)


PathText = Annotated[str, ExpandsEnvironment()]
