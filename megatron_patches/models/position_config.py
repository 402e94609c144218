"""`model.position_embedding`: how a token knows its place. One model for each kind, with the keys that it has."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from data_tools.section import Section


class LearnedPositionConfig(Section):
    """A learned vector for each place, added to the token's (Radford et al. 2019)."""

    name: Literal["learned"] = Field(description="the kind")

    def parameters(self, sequence_length: int, hidden_size: int) -> int:
        """Parameters of the kind itself."""
        return sequence_length * hidden_size


class NoPositionConfig(Section):
    """Nothing: causal attention alone tells the order (Haviv et al. 2022)."""

    name: Literal["none"] = Field(description="the kind")

    def parameters(self, sequence_length: int, hidden_size: int) -> int:
        """Parameters of the kind itself."""
        return 0


def _kind_by_name(value: Any) -> Any:
    """`position_embedding: learned` is short for `{name: learned}`."""
    return {"name": value} if isinstance(value, str) else value


PositionConfig = Annotated[
    Annotated[LearnedPositionConfig | NoPositionConfig, Field(discriminator="name")], BeforeValidator(_kind_by_name)
]
