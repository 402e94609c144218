"""The `schedule:` section of a run: one model for each learning-rate schedule."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from megatron_patches.configuration.section import Section, kind_by_name

Unit = Literal["steps", "samples", "tokens"]


class _AnySchedule(Section):
    unit: Unit = Field("steps", description="what the lengths of this section are counted in")
    warmup: int = Field(0, ge=0, description="linear growth from zero to the peak learning rate, in units")


class ConstantScheduleConfig(_AnySchedule):
    """The peak learning rate to the end."""

    name: Literal["constant"] = Field(description="kind; it decides which keys there are")


class InverseSquareRootScheduleConfig(_AnySchedule):
    """The peak up to `timescale`, then falling with the square root: peak * sqrt(timescale / position)."""

    name: Literal["inverse_square_root"] = Field(description="kind; it decides which keys there are")
    timescale: int | None = Field(
        None, gt=0, description="position, in units, from which the rate falls; unset means the end of the warm-up"
    )
    final_learning_rate: float = Field(0.0, ge=0, description="the rate falls no lower")


class _DecayingSchedule(_AnySchedule):
    decay_end: int | None = Field(
        None,
        gt=0,
        description="position, in units, where the final learning rate is reached; unset means the run's end",
    )
    final_learning_rate: float = Field(0.0, ge=0, description="learning rate from decay_end on")


class LinearScheduleConfig(_DecayingSchedule):
    """A straight line from the peak to the final learning rate."""

    name: Literal["linear"] = Field(description="kind; it decides which keys there are")


class CosineScheduleConfig(_DecayingSchedule):
    """Half a cosine from the peak to the final learning rate."""

    name: Literal["cosine"] = Field(description="kind; it decides which keys there are")


class WarmupStableDecayScheduleConfig(_DecayingSchedule):
    """Warm-up, the peak for most of the run, a decay at its end (Hu et al. 2024)."""

    name: Literal["warmup_stable_decay"] = Field(description="kind; it decides which keys there are")
    decay: int = Field(gt=0, description="length of the decay before decay_end, in units")
    shape: Literal["linear", "cosine", "square_root"] = Field(
        "linear", description="course of the decay; square_root falls by 1 - sqrt(share of it that is over)"
    )


ScheduleConfig = Annotated[
    Annotated[
        ConstantScheduleConfig
        | InverseSquareRootScheduleConfig
        | LinearScheduleConfig
        | CosineScheduleConfig
        | WarmupStableDecayScheduleConfig,
        Field(discriminator="name"),
    ],
    BeforeValidator(kind_by_name),
]
