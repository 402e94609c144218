"""The `parallel:` section of a run: the layout of its ranks. Data parallelism is derived from the world size."""

from typing import Literal

from pydantic import Field

from data_tools.section import Section


class ParallelConfig(Section):
    """How the model and its optimizer are spread over processes."""

    tensor: int = Field(1, gt=0, description="ranks that share each matrix (tensor parallel); keep inside a node")
    pipeline: int = Field(1, gt=0, description="stages that share the layers (pipeline parallel)")
    zero_stage: Literal[0, 1] = Field(
        1, description="0: every data-parallel rank holds the whole optimizer state; 1: each holds its share"
    )
    processes_per_node: int | None = Field(
        None, gt=0, description="processes on each SLURM node where SLURM_GPUS_ON_NODE is not set"
    )
    local_processes: int | None = Field(
        None, gt=0, description="processes when started without SLURM; unset means tensor x pipeline"
    )
