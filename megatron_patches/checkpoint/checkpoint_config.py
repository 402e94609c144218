"""The `checkpoint:` section of a run."""

from pydantic import Field

from data_tools.section import Section


class CheckpointConfig(Section):
    """When the run saves itself; it also does so at its end and when it is asked to stop."""

    every_steps: int = Field(gt=0, description="steps between two checkpoints")
