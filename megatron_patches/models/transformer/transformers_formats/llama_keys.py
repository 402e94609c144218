"""What Llama and its kin take of a model's keys, and their `config.json` both ways."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from data_tools.samples.lengths import SampleLengths
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.models.transformer.transformers_formats.config_keys import ConfigReader, written_activation
from megatron_patches.models.transformer.transformers_formats.rotary_keys import read_theta, written_rotary
from megatron_patches.models.transformer.transformers_formats.switches import ANY, COMMON, Taken, only

GATES = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu", "liglu": "linear"}
"""ours and theirs: what is done to the half that multiplies the other; `gelu` is the exact one on both sides"""
LIKE_LLAMA: Mapping[str, Taken] = {
    **COMMON,
    "key_value_heads": ANY,
    "ffn_size": ANY,
    "position_embedding": only("position_embedding", "rotary"),
    "position_embedding.theta": ANY,
    "position_embedding.fraction": only("position_embedding.fraction", 1.0),
    "position_embedding.pairs": only("position_embedding.pairs", "half"),
    "activation": only("activation", *GATES),
    "norm": only("norm", "rmsnorm"),
    "norm_bias": only("norm_bias", False),
    "embedding_norm": only("embedding_norm", False),
    "parallel_residual": only("parallel_residual", False),
}
"""what these take alike"""


@dataclass(frozen=True)
class Defaults:
    """Values of the keys that a `config.json` leaves out, which differ between these."""

    layers: int
    hidden_size: int
    attention_heads: int
    ffn_size: int
    vocab_size: int
    norm_epsilon: float
    positions: int


def written_like_llama(model: TransformerConfig, lengths: SampleLengths) -> dict[str, JsonValue]:
    """Their keys of a model that they take."""
    return {
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.attention_heads,
        "num_key_value_heads": model.groups,
        "head_dim": model.head_size,
        "intermediate_size": model.mlp_width,
        "max_position_embeddings": lengths.of("tokens"),
        "rope_parameters": written_rotary(model),
        "hidden_act": written_activation(GATES, model),
        "rms_norm_eps": model.norm_epsilon,
        "attention_bias": model.attention_bias,
        "mlp_bias": model.mlp_bias,
        "attention_dropout": model.attention_dropout,
        "initializer_range": min(model.deviation, 1.0),  # their sections take no more
    }


def read_like_llama(keys: ConfigReader, defaults: Defaults, causal: bool = True) -> dict[str, Any]:
    """A `model:` section without its name.

    Args:
        causal: tokens see those before them alone.

    Raises:
        Refused: a key asks for what our architectures have not.
    """
    keys.refuse_other_functions(causal)
    hidden = keys.whole("hidden_size", default=defaults.hidden_size)
    heads = keys.whole("num_attention_heads", default=defaults.attention_heads)
    keys.only("head_dim", hidden // heads, default=hidden // heads)
    return {
        "layers": keys.whole("num_hidden_layers", default=defaults.layers),
        "hidden_size": hidden,
        "attention_heads": heads,
        "key_value_heads": keys.whole("num_key_value_heads", default=heads),
        "ffn_size": keys.whole("intermediate_size", default=defaults.ffn_size),
        "vocab_size": keys.whole("vocab_size", default=defaults.vocab_size),
        "position_embedding": {"name": "rotary", "theta": read_theta(keys)},
        "activation": keys.activation("hidden_act", GATES, default="silu"),
        "norm": "rmsnorm",
        "norm_bias": False,
        "norm_epsilon": keys.number("rms_norm_eps", default=defaults.norm_epsilon),
        "attention_bias": keys.flag("attention_bias", default=False),
        "mlp_bias": keys.flag("mlp_bias", default=False),
        "tied_head": keys.flag("tie_word_embeddings", default=False),
        "attention_dropout": keys.number("attention_dropout", default=0.0),
        "init_std": keys.number("initializer_range", default=0.02),
    }


def read_positions(keys: ConfigReader, defaults: Defaults) -> int:
    """The length that it was trained for."""
    return keys.whole("max_position_embeddings", default=defaults.positions)
