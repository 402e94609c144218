"""A model and its objective in a line each."""

from typing import Any

import pytest

from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.gpt.summary import describe_gpt
from megatron_patches.objectives.objective_config import CausalConfig, PrefixLMConfig

GPT2 = {"layers": 24, "hidden_size": 2048, "attention_heads": 16, "ffn_size": 5504, "vocab_size": 100}
LLAMA = {
    "key_value_heads": 4,
    "position_embedding": "rotary",
    "activation": "swiglu",
    "norm": "rmsnorm",
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "tied_head": False,
}


def describe(**keys: Any) -> str:
    return describe_gpt(GPTConfig.model_validate({**GPT2, **keys}))


def test_gpt2_is_said_without_its_switches() -> None:
    assert describe() == "24 blocks, width 2048, 16 heads, learned positions, gelu_tanh 5504, layernorm"


def test_llama() -> None:
    assert describe(**LLAMA) == (
        "24 blocks, width 2048, 16 heads (4 key/value), rotary, swiglu 5504, rmsnorm, no biases in attention, MLP, "
        "untied head"
    )


@pytest.mark.parametrize(
    ("keys", "arguments"),
    [
        ({"position_embedding": "none"}, "no positions"),
        ({"position_embedding": "alibi"}, "alibi"),
        ({"position_embedding": {"name": "rotary", "theta": 5e5, "fraction": 0.25}}, "rotary (theta 500000, of 25%)"),
        ({"position_embedding": {"name": "rotary", "pairs": "interleaved"}}, "rotary (interleaved)"),
        ({"norm_placement": "post"}, "post-norm"),
        ({"parallel_residual": True}, "parallel residual"),
        ({"embedding_norm": True}, "embedding norm"),
        ({"query_key_norm": True}, "query-key norm"),
        ({"norm_bias": False}, "no biases in norms"),
        ({"logit_soft_cap": 30.0}, "logits within 30"),
        ({"hidden_dropout": 0.1, "attention_dropout": 0.1}, "layernorm, dropout 0.1"),
        ({"hidden_dropout": 0.1}, "dropout 0.1 of sub-layers, dropout 0.1 of the embedding"),
        ({"attention_dropout": 0.3, "embedding_dropout": 0.2}, "dropout 0.3 of attention weights, dropout 0.2 of the"),
        ({"embedding_dropout": 0.2}, "layernorm, dropout 0.2 of the embedding"),
    ],
)
def test_what_differs_is_said(keys: dict[str, Any], arguments: str) -> None:
    assert arguments in describe(**keys)
    assert arguments not in describe()


@pytest.mark.parametrize(
    ("objective", "text"),
    [
        (CausalConfig(name="causal"), "causal"),
        (
            CausalConfig(name="causal", reset_attention=True, reset_positions=True, loss_after_end_of_document=False),
            "causal, attention reset at documents, positions reset at documents, no loss after end of document",
        ),
        (CausalConfig(name="causal", label_smoothing=0.1, z_loss=1e-4), "causal, label smoothing 0.1, z-loss 0.0001"),
        (PrefixLMConfig(name="prefix_lm"), "prefix-LM, loss on targets only"),
        (
            PrefixLMConfig(name="prefix_lm", reweight_by_position=True),
            "prefix-LM, loss on targets only, reweighted by position",
        ),
    ],
)
def test_objectives(objective: CausalConfig | PrefixLMConfig, text: str) -> None:
    assert objective.describe() == text
