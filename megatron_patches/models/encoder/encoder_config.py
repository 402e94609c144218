"""The `model:` section of an encoder."""

from fractions import Fraction
from typing import Literal

from pydantic import Field, model_validator

from megatron_patches.models.layers.position_config import PositionConfig, RotaryPositionConfig
from megatron_patches.models.layers.transformer_config import Activation, Norm, TransformerConfig

_WIDTH_MULTIPLE = 8


class EncoderConfig(TransformerConfig):
    """Architecture and initialisation of an encoder; the defaults are NeoBERT's (Le Breton et al. 2025)."""

    name: Literal["encoder"] = Field(description="architecture; it decides which keys there are")
    ffn_size: int = Field(
        gt=0,
        description="width of the MLP between its matrices, features; gated_width says what a gated one makes of it",
    )
    gated_width: Literal["two_thirds", "as_given"] = Field(
        "two_thirds",
        description="width of each half of a gated MLP: two thirds of ffn_size, rounded up to a multiple of 8, so that "
        "its three matrices have as many parameters as two of ffn_size; or ffn_size as it is given",
    )
    vocab_multiple: int = Field(
        128,
        gt=0,
        description="rows of the token embedding are vocab_size padded up to a multiple of this; padding belongs to "
        "the run, never to the layout",
    )
    position_embedding: PositionConfig = Field(
        RotaryPositionConfig(name="rotary"), description="how a token knows its place: a kind's name, or its keys"
    )
    activation: Activation = Field(
        "swiglu",
        description="non-linearity of the MLP; those ending in glu are gated: a second matrix of the same size "
        "multiplies",
    )
    norm: Norm = Field("rmsnorm", description="kind of every normalisation")
    norm_bias: bool = Field(False, description="whether LayerNorms have a bias; RMSNorm never has one")
    attention_bias: bool = Field(False, description="whether the matrices of attention have biases")
    mlp_bias: bool = Field(False, description="whether the matrices of the MLP have biases")
    tied_head: bool = Field(True, description="whether the decoder, which gives the logits, is the token embedding")
    decoder_bias: bool = Field(False, description="whether the decoder adds a bias to the logits")

    @property
    def mlp_width(self) -> int:
        """See `TransformerConfig`; of NeoBERT's rule the share is rounded down first, as its authors' code does."""
        if not self._takes_two_thirds:
            return self.ffn_size
        return -(-max(1, 2 * self.ffn_size // 3) // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE

    @property
    def mlp_multiple(self) -> int:
        return _WIDTH_MULTIPLE if self._takes_two_thirds else 1

    @property
    def ffn_size_per_feature(self) -> Fraction:
        return Fraction(3, 2) if self._takes_two_thirds else Fraction(1)

    @property
    def _takes_two_thirds(self) -> bool:
        return self.gated and self.gated_width == "two_thirds"

    @model_validator(mode="after")
    def _width_is_read(self) -> "EncoderConfig":
        if not self.gated and "gated_width" in self.model_fields_set and self.gated_width == "as_given":
            raise ValueError(
                f"gated_width as_given has no effect with activation {self.activation}, which is not gated; remove it"
            )
        return self
