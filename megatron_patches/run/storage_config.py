"""The `storage:` section of a run."""

from typing import Literal

from pydantic import Field, field_validator

from megatron_patches.artefacts.location import parse_location
from megatron_patches.configuration.section import Section

What = Literal["checkpoints", "logs", "tensorboard", "evals", "exports"]


class LocationConfig(Section):
    """A place that copies of the run are to lie at; `tools/sync-to-hub --all` brings them there."""

    to: str = Field(
        min_length=1,
        description="address (file://, s3://, gs://, hf://); the run's folder is made in it, or where it says {run}",
    )
    what: list[What] = Field(["checkpoints"], min_length=1, description="parts of the run that are copied")
    full_every: int | None = Field(
        None, gt=0, description="steps: whole checkpoints at multiples of it; unset means every one"
    )
    weights_every: int | None = Field(
        None, gt=0, description="steps: of other checkpoints at multiples of it, the weights; unset means none"
    )
    pinned: bool = Field(True, description="also every pinned checkpoint, whole, such as those before a loss spike")

    @field_validator("to")
    @classmethod
    def _is_address(cls, to: str) -> str:
        parse_location(to)
        return to


class StorageConfig(Section):
    """Where copies of the run are kept."""

    locations: list[LocationConfig] = Field([], description="places, each with what it holds")
