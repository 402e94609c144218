"""Blocks of Llama and its kin: queries, keys, values, gate and up have a matrix each, and the same names."""

from megatron_patches.models.interface.transformers_format import TensorPair
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.models.transformer.transformers_formats.rearranging import same, stacked, vocabulary

TABLE = "model.embed_tokens.weight"
"""name of the table of tokens"""
_VOCABULARY = {
    "embedding.tokens.table.weight": TABLE,
    "head.logits.linear.weight": "lm_head.weight",
    "head_bias.bias": "lm_head.bias",
}
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


def separate_pair(name: str, shape: tuple[int, ...], model: TransformerConfig) -> TensorPair:
    """One of our parameters and its tensors.

    Args:
        shape: of its row.
    """
    if name in _VOCABULARY:
        return vocabulary(name, _VOCABULARY[name], model.vocab_size)
    if name == "final_norm.weight":
        return same(name, "model.norm.weight", shape)
    _, number, rest = name.split(".", 2)
    layer, _, kind = rest.rpartition(".")
    block = f"model.layers.{number}"
    if layer in _STACKED:
        dimension, parts = _STACKED[layer]
        return stacked(name, [f"{block}.{part}.{kind}" for part in parts], shape, dimension)
    return same(name, f"{block}.{_BLOCK[layer]}.{kind}", shape)
