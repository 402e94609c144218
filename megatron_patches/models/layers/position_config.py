"""`model.position_embedding`: how a token knows its position. One model for each kind, with the keys that it has."""

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from megatron_patches.configuration.section import Section, kind_by_name


class _AnyPositionConfig(Section):
    reads_positions: ClassVar[bool] = False
    """whether the number of a position matters, or only distances (or nothing)"""

    @abstractmethod
    def describe(self) -> str:
        """The kind in a few words, with what is not usual about it."""

    def parameters(self, positions: int, hidden_size: int) -> int:
        """Parameters of the kind itself."""
        return 0


class LearnedPositionConfig(_AnyPositionConfig):
    """A learned vector for each position, added to the token's (Radford et al. 2019)."""

    reads_positions: ClassVar[bool] = True
    name: Literal["learned"] = Field(description="the kind")

    def describe(self) -> str:
        return "learned positions"

    def parameters(self, positions: int, hidden_size: int) -> int:
        return positions * hidden_size


class RotaryPositionConfig(_AnyPositionConfig):
    """Queries and keys are turned by an angle that grows with the position (Su et al. 2021)."""

    reads_positions: ClassVar[bool] = True
    name: Literal["rotary"] = Field(description="the kind")
    theta: float = Field(10000.0, gt=1, description="base of the wavelengths; longer contexts take larger ones")
    fraction: float = Field(
        1.0, gt=0, le=1, description="share of each head's features that are turned, from the first"
    )
    pairs: Literal["half", "interleaved"] = Field(
        "half",
        description="which features turn together: feature i with i + half of them (GPT-NeoX, Llama), or neighbours "
        "(the paper, GPT-J)",
    )

    def describe(self) -> str:
        asked = [f"theta {self.theta:g}"] if self.theta != 10000 else []
        asked += [f"of {self.fraction:.0%}"] if self.fraction != 1 else []
        asked += ["interleaved"] if self.pairs == "interleaved" else []
        return f"rotary ({', '.join(asked)})" if asked else "rotary"

    def rotated_features(self, head_size: int) -> int:
        """Features of a head that are turned.

        Raises ValueError where they are not an even number; a thousandth of a feature is rounding.
        """
        share = head_size * self.fraction
        rotated = round(share)
        if abs(share - rotated) > 1e-3 or rotated == 0 or rotated % 2:
            below = int(share) // 2 * 2
            near = [features for features in (below, below + 2) if 0 < features <= head_size]
            remedy = " or ".join(f"{features / head_size:g}" for features in near)
            raise ValueError(
                f"position_embedding.fraction {self.fraction:g} of {head_size} features a head are {share:g}, and "
                "features are turned in pairs; "
                + (f"nearest fraction that gives an even number: {remedy}" if near else "give a head at least 2")
            )
        return rotated


class AlibiPositionConfig(_AnyPositionConfig):
    """Scores fall linearly with the distance, before or behind, by a slope of each head (Press et al. 2022)."""

    name: Literal["alibi"] = Field(description="the kind")

    def describe(self) -> str:
        return "alibi"


class NoPositionConfig(_AnyPositionConfig):
    """Nothing: causal attention alone tells the order (Haviv et al. 2022)."""

    name: Literal["none"] = Field(description="the kind")

    def describe(self) -> str:
        return "no positions"


PositionConfig = Annotated[
    Annotated[
        LearnedPositionConfig | RotaryPositionConfig | AlibiPositionConfig | NoPositionConfig,
        Field(discriminator="name"),
    ],
    BeforeValidator(kind_by_name),
]
