"""The `evaluation:` section of a run."""

from pydantic import Field

from megatron_patches.configuration.section import Section


class EvaluationConfig(Section):
    """Validation loss while training, always on the same samples."""

    every_steps: int = Field(gt=0, description="steps between two validations; one is also made at the end")
    samples: int = Field(gt=0, description="validation samples, the first of the split in file order")
