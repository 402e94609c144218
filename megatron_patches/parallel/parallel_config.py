"""The `parallel:` section of a run: the layout of its ranks. Data parallelism is derived from the world size."""

from typing import Literal

from pydantic import Field, model_validator

from megatron_patches.configuration.section import Section


class ParallelConfig(Section):
    """How the model and its optimizer are spread over processes."""

    tensor: int = Field(1, gt=0, description="ranks that share each matrix (tensor parallel); keep inside a node")
    sequence_parallel: bool = Field(
        False, description="whether tensor-parallel ranks also share the tokens between the matrices: less memory"
    )
    pipeline: int = Field(1, gt=0, description="stages that share the layers (pipeline parallel)")
    pipeline_partition: Literal["transformer", "transformer|embedding", "parameters"] = Field(
        "transformer",
        description="what is shared evenly between stages: blocks; blocks, embedding and head; or parameters",
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        1,
        description="what each data-parallel rank holds only its share of: 0 nothing, 1 the optimizer's state, 2 also "
        "the gradients, 3 also the weights; 2 and 3 with pipeline 1 only",
    )
    overlap_reduction: bool = Field(
        False,
        description="whether ranks sum gradients while the backward pass goes on, in buckets of 100 MB (ZeRO 1, "
        "pipeline 1): hides messages, and sends twice the bytes of one scattered sum",
    )
    processes_per_node: int | None = Field(
        None, gt=0, description="processes on each SLURM node where SLURM_GPUS_ON_NODE is not set"
    )
    local_processes: int | None = Field(
        None, gt=0, description="processes when started without SLURM; unset means tensor x pipeline"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> "ParallelConfig":
        if self.zero_stage >= 2 and self.pipeline > 1:
            raise ValueError(
                f"zero_stage {self.zero_stage} needs pipeline 1: a pipeline keeps gradients and weights of all its "
                "micro-batches until the last one; set zero_stage to 1 or 0, or pipeline to 1"
            )
        if self.overlap_reduction and (self.zero_stage != 1 or self.pipeline > 1):
            raise ValueError(
                f"overlap_reduction is for zero_stage 1 and pipeline 1, and these are {self.zero_stage} and "
                f"{self.pipeline}; set it to false"
            )
        if self.sequence_parallel and self.tensor == 1:
            raise ValueError("sequence_parallel has no effect with tensor 1; set it to false, or raise tensor")
        if self.pipeline == 1 and self.pipeline_partition != "transformer":
            raise ValueError(
                f"pipeline_partition {self.pipeline_partition} has no effect with pipeline 1; remove it, or raise "
                "pipeline"
            )
        return self
