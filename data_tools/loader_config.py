"""How samples are read beside training: `data.loader`. It decides time and memory, never a number of training."""

from typing import Literal

from pydantic import Field

from megatron_patches.configuration.section import Section


class LoaderConfig(Section):
    """What prepares the next steps while one is trained."""

    workers: int = Field(
        1,
        ge=1,
        le=1024,
        description="threads of each rank that read, hash and mask samples of datasets, each a step at a time, and "
        "processes that tokenize raw text; more help where the event data_wait comes in every step and cores are free",
    )
    prefetch: int = Field(
        4,
        ge=1,
        le=1024,
        description="steps that are read ahead of the one that trains; more bridge a file system that stands still at "
        "times, and each takes the host memory of one step's samples",
    )
    pin_memory: Literal["auto"] | bool = Field(
        "auto",
        description="keep batches in memory that a GPU copies from while the host goes on; auto does so on GPUs, true "
        "is refused on a CPU",
    )
    persistent: bool = Field(
        True,
        description="keep workers, and what they have read ahead, while the run validates; false ends them before and "
        "reads again after it, which frees their cores and memory for the validation",
    )
