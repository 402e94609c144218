"""The `logging:` section of a run."""

from typing import Literal

from pydantic import Field

from megatron_patches.configuration.section import Section


class WandbConfig(Section):
    """Weights & Biases, an extra (`pip install -e .[wandb]`)."""

    project: str = Field(description="project the run appears in")
    group: str | None = Field(None, description="group of the run; unset means its family, the folder under train/")
    mode: Literal["offline", "online"] = Field("offline", description="offline writes files only; nothing is sent")


class LoggingConfig(Section):
    """What is shown and recorded while training; TensorBoard files are always written."""

    every_steps: int = Field(1, gt=0, description="steps between two lines of the log; events record every step")
    wandb: WandbConfig | None = Field(None, description="also log to Weights & Biases")
