"""Configurations as they lie on the hub, in the spellings of their years, and bad ones."""

from typing import Any

import pytest

from megatron_patches.errors import Refused
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.models.parameter_table import parameter_table
from tests.megatron_patches.models.transformers_formats.variants import form_of, model_of
from tests.small_model import causal_lengths

PYTHIA: dict[str, Any] = {
    "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu", "hidden_size": 512, "initializer_range": 0.02,
    "intermediate_size": 2048, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "num_attention_heads": 8,
    "num_hidden_layers": 6, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False,
    "torch_dtype": "float16", "use_cache": True, "use_parallel_residual": True, "vocab_size": 50304,
}  # fmt: skip
LLAMA_2: dict[str, Any] = {
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008,
    "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False, "vocab_size": 32000,
}  # fmt: skip
BLOOM_560M: dict[str, Any] = {
    "apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0, "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True, "hidden_dropout": 0.0, "n_embed": 1024, "layer_norm_epsilon": 1e-05,
    "masked_softmax_fusion": True, "n_inner": None, "n_layer": 24, "num_attention_heads": 16, "offset_alibi": 100,
    "pretraining_tp": 1, "skip_bias_add": True, "slow_but_exact": False, "vocab_size": 250880,
}  # fmt: skip

EUROBERT_210M: dict[str, Any] = {
    "architectures": ["EuroBertForMaskedLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token": "<|begin_of_text|>", "bos_token_id": 128000, "clf_pooling": "late", "eos_token": "<|end_of_text|>",
    "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu", "hidden_dropout": 0.0, "hidden_size": 768,
    "initializer_range": 0.02, "intermediate_size": 3072, "mask_token": "<|mask|>", "mask_token_id": 128002,
    "max_position_embeddings": 8192, "mlp_bias": False, "num_attention_heads": 12, "num_hidden_layers": 12,
    "num_key_value_heads": 12, "pad_token": "<|end_of_text|>", "pad_token_id": 128001, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 250000, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "use_cache": False, "vocab_size": 128256,
}  # fmt: skip
EUROBERT: dict[str, tuple[dict[str, Any], int]] = {
    "210m": (EUROBERT_210M, 211_766_016),
    "610m": (
        EUROBERT_210M | {
            "hidden_size": 1152, "intermediate_size": 4096, "num_attention_heads": 18, "num_hidden_layers": 26,
            "num_key_value_heads": 6,
        },
        607_874_688,
    ),
    "2.1B": (
        EUROBERT_210M | {
            "head_dim": 128, "hidden_size": 2304, "intermediate_size": 6144, "num_attention_heads": 18,
            "num_hidden_layers": 32, "num_key_value_heads": 6,
        },
        2_107_590_912,
    ),
}  # fmt: skip
"""and parameters without the decoder, which is a matrix of its own"""


def read(model_type: str, config: dict[str, Any]) -> TransformerConfig:
    """The model of a configuration."""
    return model_of(form_of(model_type).read(config).section)


def test_pythia() -> None:
    model = read("gpt_neox", PYTHIA)
    assert (model.layers, model.hidden_size, model.ffn_size, model.parallel_residual) == (6, 512, 2048, True)
    assert model.position_embedding.model_dump() == {
        "name": "rotary", "theta": 10000.0, "fraction": 0.25, "pairs": "half",
    }  # fmt: skip


def test_llama_2() -> None:
    model = read("llama", LLAMA_2)
    assert (model.groups, model.norm, model.activation, model.tied_head) == (32, "rmsnorm", "swiglu", False)
    assert (model.norm_bias, model.attention_bias, model.mlp_bias, model.norm_epsilon) == (False, False, False, 1e-5)


def test_bloom_560m() -> None:
    model = read("bloom", BLOOM_560M)
    assert (model.hidden_size, model.attention_heads, model.ffn_size, model.tied_head) == (1024, 16, 4096, True)
    assert (model.embedding_norm, model.position_embedding.name) == (True, "alibi")


@pytest.mark.parametrize("size", EUROBERT)
def test_eurobert(size: str) -> None:
    config, parameters = EUROBERT[size]
    model = read("eurobert", config)
    rows = parameter_table(model, causal_lengths(8192))
    assert sum(row.elements for row in rows if row.part != "head") == parameters
    assert (model.mlp_width, model.padded_vocab_size, model.tied_head) == (config["intermediate_size"], 128256, False)
    assert (model.head_size, model.norm_epsilon) == (config["head_dim"] if size != "610m" else 64, 1e-5)
    assert model.position_embedding.model_dump() == {
        "name": "rotary", "theta": 250000.0, "fraction": 1.0, "pairs": "half",
    }  # fmt: skip
    assert form_of("eurobert").read(config).positions == 8192


@pytest.mark.parametrize(
    ("model_type", "config", "said"),
    [
        ("eurobert", {"is_causal": True}, "is_causal is true; what can be imported has false"),
        ("eurobert", {"hidden_act": "gelu_new"}, "hidden_act is gelu_new"),
        ("eurobert", {"head_dim": 32}, "head_dim is 32; what can be imported has 64"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.type is linear"),
        ("llama", {"rope_parameters": {"full_attention": {}}}, "rope_parameters.full_attention is {}"),
        ("llama", {"rope_parameters": "default"}, "rope_parameters is default"),
        ("llama", {"hidden_size": "4096"}, "hidden_size is 4096; what can be imported has a whole number above 0"),
        ("llama", {"num_hidden_layers": True}, "num_hidden_layers is true"),
        ("llama", {"rms_norm_eps": "1e-5"}, "rms_norm_eps is 1e-5; what can be imported has a number"),
        ("llama", {"tie_word_embeddings": 1}, "tie_word_embeddings is 1; what can be imported has true or false"),
        ("llama", {"hidden_act": ["silu"]}, "hidden_act is"),
        ("bloom", {"n_embed": 64, "hidden_size": 128}, "n_embed is 64; what can be imported has what hidden_size says"),
        ("gpt_neox", {"rotary_pct": 0.24}, "rotary_pct is 0.24"),
        ("gpt_neox", {"rotary_pct": 1e308}, "rotary_pct is 1e+308"),
        ("gpt2", {"activation_function": "x\x1b[2J"}, r"activation_function is x\x1b[2J"),
        ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_key(model_type: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as error:
        form_of(model_type).read(config)
    assert str(error.value).startswith(f"config.json of {model_type}: ")
    assert said in str(error.value)
