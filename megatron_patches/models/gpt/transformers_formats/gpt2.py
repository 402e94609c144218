"""GPT-2 (Radford et al. 2019) as transformers has it: learned positions, layer norms, matrices stored as (in, out)."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from pydantic import JsonValue

from data_tools.samples.lengths import SampleLengths
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.gpt.transformers_formats.gpt_switches import WITH_LAYER_NORMS
from megatron_patches.models.interface.transformers_format import FilledTensor, ModelRead, TensorPair
from megatron_patches.models.transformer.transformers_formats.config_keys import ConfigReader, written_activation
from megatron_patches.models.transformer.transformers_formats.rearranging import (
    query_key_value_first,
    same,
    transposed,
    vocabulary,
)
from megatron_patches.models.transformer.transformers_formats.sorted_format import SortedFormat
from megatron_patches.models.transformer.transformers_formats.switches import ANY, only

ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu"}
"""ours and theirs; `gelu_pytorch_tanh` and `gelu_fast` are the same function as `gelu_new`"""


class GPT2Format(SortedFormat):
    """`GPT2LMHeadModel`. Biases that the model has not are written as zeros."""

    model_type = "gpt2"
    class_name = "GPT2LMHeadModel"
    base = "transformer"
    table = "transformer.wte.weight"
    taken: ClassVar = {
        **WITH_LAYER_NORMS,
        "ffn_size": ANY,
        "position_embedding": only("position_embedding", "learned"),
        "activation": only("activation", *ACTIVATIONS),
        "embedding_norm": only("embedding_norm", False),
        "parallel_residual": only("parallel_residual", False),
    }

    def config(self, model: GPTConfig, lengths: SampleLengths) -> dict[str, JsonValue]:
        return {
            "n_layer": model.layers,
            "n_embd": model.hidden_size,
            "n_head": model.attention_heads,
            "n_inner": model.ffn_size,
            "n_positions": lengths.of("tokens"),
            "activation_function": written_activation(ACTIVATIONS, model),
            "layer_norm_epsilon": model.norm_epsilon,
            "resid_pdrop": model.hidden_dropout,
            "attn_pdrop": model.attention_dropout,
            "embd_pdrop": model.dropout_of_embedding,
            "initializer_range": model.deviation,
        }

    def read(self, config: Mapping[str, JsonValue]) -> ModelRead:
        keys = ConfigReader(self.model_type, config)
        keys.refuse_other_functions()
        keys.only("scale_attn_weights", True, default=True)
        keys.only("scale_attn_by_inverse_layer_idx", False, default=False)
        keys.only("add_cross_attention", False, default=False)
        hidden = keys.whole("n_embd", "hidden_size", default=768)
        section = {
            "name": "gpt",
            "layers": keys.whole("n_layer", "num_hidden_layers", default=12),
            "hidden_size": hidden,
            "attention_heads": keys.whole("n_head", "num_attention_heads", default=12),
            "ffn_size": keys.whole("n_inner", default=4 * hidden),
            "vocab_size": keys.whole("vocab_size", default=50257),
            "activation": keys.activation("activation_function", ACTIVATIONS, default="gelu_new"),
            "norm_epsilon": keys.number("layer_norm_epsilon", default=1e-5),
            "tied_head": keys.flag("tie_word_embeddings", default=True),
            "hidden_dropout": keys.number("resid_pdrop", default=0.1),
            "attention_dropout": keys.number("attn_pdrop", default=0.1),
            "embedding_dropout": keys.number("embd_pdrop", default=0.1),
            "init_std": keys.number("initializer_range", default=0.02),
        }
        return ModelRead(section, keys.whole("n_positions", "max_position_embeddings", default=1024))

    def pair(self, name: str, shape: tuple[int, ...], model: GPTConfig) -> TensorPair:
        return _pair(name, shape, model)

    def filled(self, model: GPTConfig) -> list[FilledTensor]:
        return [FilledTensor(f"transformer.{name}", (size,)) for name, size in _absent_biases(model)]

    def ignored(self, name: str) -> bool:
        return name.endswith((".attn.bias", ".attn.masked_bias"))  # masks, which versions before 4.35 saved


_OUTSIDE = {
    "positions.weight": "transformer.wpe.weight",
    "final_norm.weight": "transformer.ln_f.weight",
    "final_norm.bias": "transformer.ln_f.bias",
}
_BLOCK = {
    "attention_norm": "ln_1",
    "attention.query_key_value.linear": "attn.c_attn",
    "attention.output.linear": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.up.linear": "mlp.c_fc",
    "mlp.down.linear": "mlp.c_proj",
}


def _pair(name: str, shape: tuple[int, ...], model: GPTConfig) -> TensorPair:
    """Conv1D stores (in, out); queries, keys and values come one after another."""
    if name == "embedding.tokens.table.weight":
        return vocabulary(name, GPT2Format.table, model.vocab_size)
    if name == "head.logits.linear.weight":
        return vocabulary(name, "lm_head.weight", model.vocab_size)
    if name in _OUTSIDE:
        return same(name, _OUTSIDE[name], shape)
    _, number, rest = name.split(".", 2)
    layer, _, kind = rest.rpartition(".")
    theirs = f"transformer.h.{number}.{_BLOCK[layer]}.{kind}"
    if layer == "attention.query_key_value.linear":
        return query_key_value_first(name, theirs, shape, transpose=True)
    if layer.endswith(".linear") and kind == "weight":
        return transposed(name, theirs, shape)
    return same(name, theirs, shape)


def _absent_biases(model: GPTConfig) -> Iterator[tuple[str, int]]:
    """Biases that GPT-2 always has and the model has not: name and size."""
    hidden = model.hidden_size
    for number in range(model.layers):
        block = f"h.{number}"
        if not model.norm_bias:
            yield from ((f"{block}.ln_1.bias", hidden), (f"{block}.ln_2.bias", hidden))
        if not model.attention_bias:
            yield from ((f"{block}.attn.c_attn.bias", 3 * hidden), (f"{block}.attn.c_proj.bias", hidden))
        if not model.mlp_bias:
            yield from ((f"{block}.mlp.c_fc.bias", model.ffn_size), (f"{block}.mlp.c_proj.bias", hidden))
    if not model.norm_bias:
        yield ("ln_f.bias", hidden)
