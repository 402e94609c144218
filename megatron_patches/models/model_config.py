"""The `model:` section of a run."""

from typing import Literal

from pydantic import Field, model_validator

from data_tools.section import Section
from megatron_patches.models.position_config import LearnedPositionConfig, PositionConfig


class ModelConfig(Section):
    """Architecture and initialisation of a GPT."""

    layers: int = Field(gt=0, description="transformer blocks")
    hidden_size: int = Field(gt=0, description="width of the residual stream, features")
    attention_heads: int = Field(gt=0, description="attention heads of a block")
    ffn_size: int = Field(gt=0, description="width of the MLP between its two matrices, features")
    vocab_size: int = Field(
        gt=0, description="rows of the token embedding, padding included; belongs to the run, never to the layout"
    )
    position_embedding: PositionConfig = Field(
        LearnedPositionConfig(name="learned"), description="how a token knows its place: a kind's name, or its keys"
    )
    activation: Literal["gelu_tanh", "gelu"] = Field(
        "gelu_tanh", description="non-linearity of the MLP; gelu_tanh is GPT-2's approximation"
    )
    norm_epsilon: float = Field(1e-5, gt=0, description="added to the variance in every LayerNorm")
    tied_head: bool = Field(True, description="whether the output matrix is the token embedding")
    hidden_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of features dropped after the embedding and at the end of each sub-layer"
    )
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="share of attention weights dropped")
    init_std: float = Field(0.02, gt=0, description="standard deviation of normally drawn weights")
    init_residual_scaling: bool = Field(
        True, description="divide the deviation of matrices that write to the residual stream by sqrt(2 * layers)"
    )

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> "ModelConfig":
        if self.hidden_size % self.attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by attention_heads {self.attention_heads}; "
                "choose a number of heads that divides it"
            )
        return self
