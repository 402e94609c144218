"""The `schedule:` section of a run: one model for each learning-rate schedule."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from megatron_patches.configuration.section import Section, as_list, kind_by_name

Unit = Literal["steps", "samples", "tokens"]


EXTENSION_FALLS_TO = 0.1
"""share of the rate reached, to which an extension falls where nothing else is said"""


class ExtensionConfig(Section):
    """The learning rate while the run is extended: it begins at the rate that was reached and falls to the new end."""

    shape: Literal["cosine", "linear", "square_root", "constant"] = Field(
        "cosine", description="course of the fall, over the whole extension; constant keeps the rate that was reached"
    )
    final_learning_rate: float | None = Field(
        None, ge=0, description="learning rate at the extension's end; unset means a tenth of the rate reached"
    )

    def falls_to(self, reached: float) -> float:
        """The rate at its end, from the rate at its beginning."""
        if self.shape == "constant":
            return reached
        return reached * EXTENSION_FALLS_TO if self.final_learning_rate is None else self.final_learning_rate

    @model_validator(mode="after")
    def _makes_sense(self) -> "ExtensionConfig":
        if self.shape == "constant" and self.final_learning_rate is not None:
            raise ValueError(
                "final_learning_rate has no effect with shape constant; remove it, or choose another shape"
            )
        return self


class _AnySchedule(Section):
    unit: Unit = Field("steps", description="what the lengths of this section are counted in")
    warmup: int = Field(0, ge=0, description="linear growth from zero to the peak learning rate, in units")
    extensions: Annotated[list[ExtensionConfig], BeforeValidator(as_list)] = Field(
        [],
        description="how the rate goes on in each extension of the run (training.extend_to); unset means cosine to a "
        "tenth of the rate reached, in each",
    )


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
        description="position, in units, where the final learning rate is reached; unset means the run's end, before "
        "any extension",
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
