"""What the `model:` sections of GPTs and encoders have in common."""

from fractions import Fraction
from math import sqrt
from typing import Literal

from pydantic import Field, model_validator

from megatron_patches.configuration.model_section import ModelSection
from megatron_patches.models.layers.position_config import LearnedPositionConfig, PositionConfig, RotaryPositionConfig

GATED_ACTIVATIONS = ("liglu", "geglu", "reglu", "swiglu")
Activation = Literal["gelu_tanh", "gelu", "relu", "liglu", "geglu", "reglu", "swiglu"]
Norm = Literal["layernorm", "rmsnorm"]


class TransformerConfig(ModelSection):
    """Architecture and initialisation of a stack of blocks; a subclass names the architecture."""

    name: str
    layers: int = Field(gt=0, description="transformer blocks")
    hidden_size: int = Field(gt=0, description="width of the residual stream, features")
    attention_heads: int = Field(gt=0, description="attention heads of a block")
    key_value_heads: int | None = Field(
        None,
        gt=0,
        description="heads of keys and values, each shared by a group of attention heads (1 is multi-query); unset "
        "means attention_heads",
    )
    ffn_size: int = Field(
        gt=0, description="width of the MLP between its matrices, features; of a gated MLP the width of each half"
    )
    vocab_size: int = Field(gt=0, description="token ids that the model knows")
    vocab_multiple: int = Field(
        1,
        gt=0,
        description="rows of the token embedding are vocab_size padded up to a multiple of this; padding belongs to "
        "the run, never to the layout",
    )
    position_embedding: PositionConfig = Field(
        LearnedPositionConfig(name="learned"), description="how a token knows its place: a kind's name, or its keys"
    )
    activation: Activation = Field(
        "gelu_tanh",
        description="non-linearity of the MLP; gelu_tanh is GPT-2's approximation; those ending in glu are gated: a "
        "second matrix of the same size multiplies",
    )
    norm: Norm = Field("layernorm", description="kind of every normalisation")
    norm_placement: Literal["pre", "post"] = Field(
        "pre",
        description="pre: each sub-layer reads a normalised copy of the stream, and a last norm precedes the head; "
        "post: the stream itself is normalised behind each sub-layer",
    )
    norm_epsilon: float = Field(1e-5, gt=0, description="added to the variance in every normalisation")
    norm_bias: bool = Field(True, description="whether LayerNorms have a bias; RMSNorm never has one")
    embedding_norm: bool = Field(
        False, description="whether the embedded tokens are normalised, before positions are added"
    )
    query_key_norm: bool = Field(
        False, description="whether each head's queries and keys are normalised before positions are applied"
    )
    parallel_residual: bool = Field(
        False, description="whether attention and MLP of a block read the same stream and are added together"
    )
    attention_bias: bool = Field(True, description="whether the matrices of attention have biases")
    mlp_bias: bool = Field(True, description="whether the matrices of the MLP have biases")
    tied_head: bool = Field(True, description="whether the output matrix is the token embedding")
    logit_soft_cap: float | None = Field(
        None, gt=0, description="logits are kept within this bound by cap * tanh(logit / cap); unset leaves them alone"
    )
    hidden_dropout: float = Field(0.0, ge=0, lt=1, description="share of features dropped at the end of each sub-layer")
    attention_dropout: float = Field(0.0, ge=0, lt=1, description="share of attention weights dropped")
    embedding_dropout: float | None = Field(
        None, ge=0, lt=1, description="share of features dropped after the embedding; unset means hidden_dropout"
    )
    init_std: float | Literal["small", "megatron_530b"] = Field(
        0.02,
        description="standard deviation of normally drawn weights: a number, small for sqrt(2 / (5 hidden_size)) "
        "(Nguyen and Salazar 2019), megatron_530b for sqrt(1 / (3 hidden_size)) (Smith et al. 2022)",
    )
    init_residual_scaling: bool = Field(
        True, description="divide the deviation of matrices that write to the residual stream by sqrt(2 * layers)"
    )

    @property
    def vocabulary(self) -> int:
        """Token ids that the model knows."""
        return self.vocab_size

    @property
    def draws(self) -> bool:
        """Whether anything is dropped in training."""
        return max(self.hidden_dropout, self.attention_dropout, self.dropout_of_embedding) > 0

    @property
    def weights_dropped(self) -> float:
        """Share of attention weights that is dropped."""
        return self.attention_dropout

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the token embedding."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    @property
    def head_size(self) -> int:
        """Features of one attention head."""
        return self.hidden_size // self.attention_heads

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.key_value_heads or self.attention_heads

    @property
    def gated(self) -> bool:
        """Whether the MLP has two input matrices, one multiplying the other."""
        return self.activation in GATED_ACTIVATIONS

    @property
    def mlp_width(self) -> int:
        """Features of the MLP between its matrices; of a gated one those of each half."""
        return self.ffn_size

    @property
    def mlp_multiple(self) -> int:
        """A number that divides `mlp_width` whatever ffn_size is."""
        return 1

    @property
    def ffn_size_per_feature(self) -> Fraction:
        """What ffn_size must be for each feature of `mlp_width`."""
        return Fraction(1)

    @property
    def deviation(self) -> float:
        """Standard deviation of normally drawn weights."""
        rules = {"small": sqrt(2 / (5 * self.hidden_size)), "megatron_530b": sqrt(1 / (3 * self.hidden_size))}
        return rules[self.init_std] if isinstance(self.init_std, str) else self.init_std

    @property
    def residual_deviation(self) -> float:
        """The same of matrices that write to the residual stream, a sum of 2 * layers terms (GPT-2, section 2.3)."""
        return self.deviation / sqrt(2 * self.layers) if self.init_residual_scaling else self.deviation

    @property
    def dropout_of_embedding(self) -> float:
        """Share of features dropped after the embedding."""
        return self.hidden_dropout if self.embedding_dropout is None else self.embedding_dropout

    @model_validator(mode="after")
    def _heads_divide(self) -> "TransformerConfig":
        if self.hidden_size % self.attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by attention_heads {self.attention_heads}; "
                "choose a number of heads that divides it"
            )
        if self.attention_heads % self.groups:
            raise ValueError(
                f"attention_heads {self.attention_heads} is not divisible by key_value_heads {self.groups}; each "
                "group of attention heads shares one: choose a number that divides the attention heads"
            )
        return self

    @model_validator(mode="after")
    def _makes_sense(self) -> "TransformerConfig":
        if isinstance(self.init_std, float) and self.init_std <= 0:
            raise ValueError(f"init_std {self.init_std} is not above 0; weights drawn alike would learn alike")
        if self.norm == "rmsnorm" and self.norm_bias:
            raise ValueError("norm_bias is true and RMSNorm has no bias; set norm_bias: false with norm: rmsnorm")
        if self.norm_placement == "post" and self.parallel_residual:
            raise ValueError(
                "parallel_residual needs norm_placement: pre; behind a sum of both there is no sub-layer left to "
                "normalise"
            )
        if isinstance(self.position_embedding, RotaryPositionConfig):
            self.position_embedding.rotated_features(self.head_size)  # refuses what cannot be paired
        return self
