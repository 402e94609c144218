"""The `training:` section of a run: how long, how much at once, in which precision."""

from typing import Literal

from pydantic import Field

from data_tools.section import Section


class TrainingConfig(Section):
    """Length, batch, precision and seed."""

    steps: int = Field(gt=0, description="optimizer steps of the whole run")
    global_batch_size: int = Field(gt=0, description="samples of one optimizer step, over all ranks")
    micro_batch_size: int = Field(gt=0, description="samples one rank puts through the model at once")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "bf16", description="type of weights and activations; bf16 keeps fp32 master weights and gradients"
    )
    seed: int = Field(1234, ge=0, description="decides initial weights, order of samples and dropout")
