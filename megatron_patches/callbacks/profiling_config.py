"""The `profile:` section of a run."""

from pydantic import Field

from megatron_patches.configuration.section import Section


class ProfileConfig(Section):
    """Where the time of some steps of each launch goes: said in the log, recorded, and traced for Perfetto."""

    steps: int = Field(gt=0, description="steps that are profiled; a trace grows with each by megabytes")
    after_step: int = Field(
        10, ge=0, description="steps of the launch before them, so that what is made once is left out"
    )
