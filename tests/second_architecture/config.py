"""The sections of a run of two stacks: `model:` and `objective:`. Torch-free."""

from typing import Literal

from pydantic import Field, model_validator

from data_tools.samples.lengths import SampleLengths
from megatron_patches.batch.fields import Field as InputField
from megatron_patches.batch.fields import ModelInputs
from megatron_patches.configuration.model_section import ModelSection
from megatron_patches.objectives.objective_config import ObjectiveSection

ENCODER_TOKENS = InputField("encoder_tokens", ("batch", "encoder"))
DECODER_TOKENS = InputField("decoder_tokens", ("batch", "decoder"))


class TwoStacksConfig(ModelSection):
    """An encoder whose blocks share one table of relative positions, and a decoder that reads what it made."""

    name: Literal["two_stacks"] = Field(description="architecture; it decides which keys there are")
    encoder_blocks: int = Field(gt=0, description="blocks of the encoder")
    decoder_blocks: int = Field(gt=0, description="blocks of the decoder")
    width: int = Field(gt=0, description="width of both residual streams, features")
    heads: int = Field(gt=0, description="attention heads of a block")
    features: int = Field(gt=0, description="width of an MLP between its matrices, features")
    vocab_size: int = Field(gt=0, description="token ids that the model knows; embeddings and head share one table")
    buckets: int = Field(8, gt=1, description="distances that the encoder's heads tell apart")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of features dropped at the end of each sub-layer")
    deviation: float = Field(0.05, gt=0, description="standard deviation of normally drawn weights")

    @property
    def vocabulary(self) -> int:
        return self.vocab_size

    @property
    def draws(self) -> bool:
        return self.dropout > 0

    @property
    def head_size(self) -> int:
        """Features of one attention head."""
        return self.width // self.heads

    @model_validator(mode="after")
    def _heads_divide(self) -> "TwoStacksConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}; choose one that divides it")
        return self


class SecondHalfConfig(ObjectiveSection):
    """The encoder reads the first part of a sample, the decoder predicts the rest token by token."""

    name: Literal["second_half"] = Field(description="kind; it decides which keys there are")
    encoder_share: float = Field(0.5, gt=0, lt=1, description="share of a sample's tokens that the encoder reads")

    def lengths(self, sequence_length: int) -> SampleLengths:
        encoder = max(1, min(sequence_length - 1, round(sequence_length * self.encoder_share)))
        decoder = max(1, sequence_length - encoder)
        return SampleLengths(
            read=encoder + decoder + 1,
            stride=encoder + decoder,
            positions=(("encoder", encoder), ("decoder", decoder)),
            counted=decoder,
        )

    @property
    def inputs(self) -> ModelInputs:
        return ModelInputs((ENCODER_TOKENS, DECODER_TOKENS), "causal")

    def describe(self) -> str:
        return f"second half, {self.encoder_share:.0%} of a sample encoded"
