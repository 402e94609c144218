"""Sections of a configuration whose kinds are registered by name, so that one can be added without a change here."""

from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar, Union, cast, get_args

from pydantic import Field, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from megatron_patches.configuration.section import Section, kind_by_name

S = TypeVar("S", bound=Section)


class Kinds(Generic[S]):
    """The kinds that a section may be of, by the literal of their `name`.

    As metadata of a field (`Annotated[Base, kinds]`) it validates the section as the kind that is named, or as the
    `default` where a mapping names none. Errors are located as those of a discriminated union are.
    """

    def __init__(self, default: str | None = None) -> None:
        self.default = default
        self._models: dict[str, type[S]] = {}

    def register(self, model: type[S]) -> type[S]:
        """Add a kind; also as a decorator. A name stands for one model: another one under it is an error."""
        (name,) = get_args(model.model_fields["name"].annotation)
        assert self._models.get(name, model) is model, f"the kind {name} is registered already"
        self._models[name] = model
        return model

    def models(self) -> list[type[S]]:
        """All kinds, in the order in which they were registered."""
        return list(self._models.values())

    def validate(self, value: Any) -> S:
        """The section that a YAML's value stands for; raises pydantic's ValidationError."""
        if isinstance(value, tuple(self._models.values())):
            return cast(S, value)
        given = kind_by_name(value)
        if isinstance(given, Mapping) and self.default is not None:
            given = {"name": self.default, **given}
        self._check_name(given)
        section: S = self._adapter().validate_python(given, strict=True)
        return section

    def _check_name(self, given: Any) -> None:
        """As a union does; a union of one kind is none, and would ask a section of another name for all its keys."""
        name = given.get("name") if isinstance(given, Mapping) else None
        if name is not None and not (isinstance(name, str) and name in self._models):
            raise PydanticKnownError(
                "union_tag_invalid",
                {"discriminator": "'name'", "tag": str(name), "expected_tags": ", ".join(self._models)},
            )

    def _adapter(self) -> TypeAdapter[Any]:
        union: Any = Union[tuple(self.models())]  # noqa: UP007  `|` takes no tuple
        # a union of one kind has no discriminator
        kinds: Any = Annotated[union, Field(discriminator="name")] if len(self._models) > 1 else union
        return TypeAdapter(kinds)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.validate, serialization=core_schema.plain_serializer_function_ser_schema(_dump, info_arg=True)
        )


def _dump(section: Section, info: Any) -> dict[str, Any]:
    return section.model_dump(mode=info.mode)
