"""The `schedule:` section of a run: one model for each learning-rate schedule."""

from typing import Annotated, Literal

from pydantic import Field

from data_tools.section import Section


class _AnySchedule(Section):
    warmup_steps: int = Field(0, ge=0, description="steps of linear growth from zero to the peak learning rate")


class ConstantScheduleConfig(_AnySchedule):
    """The peak learning rate to the end."""

    name: Literal["constant"] = Field(description="kind; it decides which keys there are")


class _DecayingSchedule(_AnySchedule):
    decay_steps: int | None = Field(
        None, gt=0, description="step at which the final learning rate is reached; unset means training.steps"
    )
    final_learning_rate: float = Field(0.0, ge=0, description="learning rate from decay_steps on")


class LinearScheduleConfig(_DecayingSchedule):
    """A straight line from the peak to the final learning rate."""

    name: Literal["linear"] = Field(description="kind; it decides which keys there are")


class CosineScheduleConfig(_DecayingSchedule):
    """Half a cosine from the peak to the final learning rate."""

    name: Literal["cosine"] = Field(description="kind; it decides which keys there are")


ScheduleConfig = Annotated[
    ConstantScheduleConfig | LinearScheduleConfig | CosineScheduleConfig, Field(discriminator="name")
]
