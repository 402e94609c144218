"""Llama (Touvron et al. 2023) as transformers has it: rotary positions, RMSNorm, a gated MLP, grouped heads."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import JsonValue

from data_tools.samples.lengths import SampleLengths
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.gpt.transformers_formats.config_keys import ConfigReader, written_activation
from megatron_patches.models.gpt.transformers_formats.gpt_format import GPTFormat
from megatron_patches.models.gpt.transformers_formats.rearranging import same, stacked, vocabulary
from megatron_patches.models.gpt.transformers_formats.rotary_keys import rotary_section, written_rotary
from megatron_patches.models.gpt.transformers_formats.switches import ANY, COMMON, only
from megatron_patches.models.interface.transformers_format import FilledTensor, ModelRead, TensorPair

ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu", "liglu": "linear"}
"""ours and theirs: what is done to the half that multiplies the other; `gelu` is the exact one on both sides"""


class LlamaFormat(GPTFormat):
    """`LlamaForCausalLM`."""

    model_type = "llama"
    class_name = "LlamaForCausalLM"
    base = "model"
    table = "model.embed_tokens.weight"
    taken: ClassVar = {
        **COMMON,
        "key_value_heads": ANY,
        "ffn_size": ANY,
        "position_embedding": only("position_embedding", "rotary"),
        "position_embedding.theta": ANY,
        "position_embedding.fraction": only("position_embedding.fraction", 1.0),
        "position_embedding.pairs": only("position_embedding.pairs", "half"),
        "activation": only("activation", *ACTIVATIONS),
        "norm": only("norm", "rmsnorm"),
        "norm_bias": only("norm_bias", False),
        "embedding_norm": only("embedding_norm", False),
        "parallel_residual": only("parallel_residual", False),
    }

    def config(self, model: GPTConfig, lengths: SampleLengths) -> dict[str, JsonValue]:
        return {
            "num_hidden_layers": model.layers,
            "hidden_size": model.hidden_size,
            "num_attention_heads": model.attention_heads,
            "num_key_value_heads": model.groups,
            "head_dim": model.head_size,
            "intermediate_size": model.ffn_size,
            "max_position_embeddings": lengths.of("tokens"),
            "rope_parameters": written_rotary(model),
            "hidden_act": written_activation(ACTIVATIONS, model),
            "rms_norm_eps": model.norm_epsilon,
            "attention_bias": model.attention_bias,
            "mlp_bias": model.mlp_bias,
            "attention_dropout": model.attention_dropout,
            "initializer_range": min(model.deviation, 1.0),  # LlamaConfig takes no more
        }

    def read(self, config: Mapping[str, JsonValue]) -> ModelRead:
        keys = ConfigReader(self.model_type, config)
        keys.refuse_other_functions()
        hidden = keys.whole("hidden_size", default=4096)
        heads = keys.whole("num_attention_heads", default=32)
        keys.only("head_dim", hidden // heads, default=hidden // heads)
        section = {
            "name": "gpt",
            "layers": keys.whole("num_hidden_layers", default=32),
            "hidden_size": hidden,
            "attention_heads": heads,
            "key_value_heads": keys.whole("num_key_value_heads", default=heads),
            "ffn_size": keys.whole("intermediate_size", default=11008),
            "vocab_size": keys.whole("vocab_size", default=32000),
            "position_embedding": {"name": "rotary", "theta": _read_theta(keys)},
            "activation": keys.activation("hidden_act", ACTIVATIONS, default="silu"),
            "norm": "rmsnorm",
            "norm_bias": False,
            "norm_epsilon": keys.number("rms_norm_eps", default=1e-6),
            "attention_bias": keys.flag("attention_bias", default=False),
            "mlp_bias": keys.flag("mlp_bias", default=False),
            "tied_head": keys.flag("tie_word_embeddings", default=False),
            "attention_dropout": keys.number("attention_dropout", default=0.0),
            "init_std": keys.number("initializer_range", default=0.02),
        }
        return ModelRead(section, keys.whole("max_position_embeddings", default=2048))

    def pair(self, name: str, shape: tuple[int, ...], model: GPTConfig) -> TensorPair:
        return _pair(name, shape, model)

    def filled(self, model: GPTConfig) -> list[FilledTensor]:
        return []

    def ignored(self, name: str) -> bool:
        return name.endswith(".rotary_emb.inv_freq")  # wavelengths, which versions before 4.32 saved


_TABLES = {"embedding.tokens.table.weight": LlamaFormat.table, "head.logits.linear.weight": "lm_head.weight"}
_BLOCK = {
    "attention_norm": "input_layernorm",
    "attention.query.linear": "self_attn.q_proj",
    "attention.output.linear": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.down.linear": "mlp.down_proj",
}
_STACKED = {
    "attention.query_key_value.linear": (1, ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    "attention.key_value.linear": (1, ("self_attn.k_proj", "self_attn.v_proj")),
    "mlp.up.linear": (0, ("mlp.gate_proj", "mlp.up_proj")),
}
"""what is one of ours and several of theirs: the dimension that counts them, and their names"""


def _pair(name: str, shape: tuple[int, ...], model: GPTConfig) -> TensorPair:
    """Queries, keys and values have a matrix each, as have the halves of the gated MLP."""
    if name in _TABLES:
        return vocabulary(name, _TABLES[name], model.vocab_size)
    if name == "final_norm.weight":
        return same(name, "model.norm.weight", shape)
    _, number, rest = name.split(".", 2)
    layer, _, kind = rest.rpartition(".")
    block = f"model.layers.{number}"
    if layer in _STACKED:
        dimension, parts = _STACKED[layer]
        return stacked(name, [f"{block}.{part}.{kind}" for part in parts], shape, dimension)
    return same(name, f"{block}.{_BLOCK[layer]}.{kind}", shape)


def _read_theta(keys: ConfigReader) -> float:
    rotary = rotary_section(keys)
    # transformers does not read it for Llama, and other programs do
    for place in (keys, rotary):
        place.only("partial_rotary_factor", 1.0, default=1.0)
    return rotary.number("rope_theta", default=keys.number("rope_theta", default=10000.0))
