"""Floating-point work against published figures."""

import pytest

from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.transformer.flops import (
    active_parameters,
    bigscience_flops,
    causal_flops,
    computed_flops,
    palm_flops,
    training_flops_per_token,
)
from megatron_patches.models.transformer.parameters import transformer_parameters

BLOOM = GPTConfig(
    layers=70, hidden_size=14336, attention_heads=112, ffn_size=4 * 14336, vocab_size=250880,
    position_embedding={"name": "alibi"}, embedding_norm=True,
)  # fmt: skip
GPT2 = GPTConfig(layers=12, hidden_size=768, attention_heads=12, ffn_size=3072, vocab_size=50304)
LLAMA = GPTConfig.model_validate(
    {
        "layers": 3, "hidden_size": 64, "attention_heads": 8, "key_value_heads": 2, "ffn_size": 172, "vocab_size": 96,
        "activation": "swiglu", "tied_head": False,
    }
)  # fmt: skip


def test_bloom_does_149_tflops() -> None:
    """384 A100, 2,048 samples of 2,048 tokens in 105.22 s, with recomputation: 149.02 TFLOP/s were published."""
    done = bigscience_flops(BLOOM, 2048, "full") * 2048 * 2048 / (105.22 * 384 * 1e12)
    assert done == pytest.approx(149.02, abs=0.005)


def test_bigsciences_formula_is_what_a_gpu_computes_only_with_recomputation() -> None:
    assert bigscience_flops(BLOOM, 2048, "full") == computed_flops(BLOOM, 2048, "full")
    missing = 1.5 * BLOOM.hidden_size * BLOOM.vocab_size  # a fourth of the logits
    assert training_flops_per_token(BLOOM, 2048) - bigscience_flops(BLOOM, 2048) == missing


def test_nanogpts_figure_by_palms_formula() -> None:
    """512k tokens/s of GPT-2 124M are 437 TFLOP/s in nanoGPT's own count, which leaves the positions out."""
    assert active_parameters(GPT2, 1024) == 124_475_904 - 1024 * 768
    assert palm_flops(GPT2, 1024) * 512e3 / 1e12 == pytest.approx(437, abs=1.5)


def test_an_untied_embedding_is_only_looked_up() -> None:
    tied = LLAMA.model_copy(update={"tied_head": True})
    assert active_parameters(LLAMA, 16) == active_parameters(tied, 16)


def test_gated_mlps_and_grouped_heads_cost_what_their_matrices_have() -> None:
    """Forward and backward pass cost 6 FLOPs a token for each weight of a matrix; the scores come on top."""
    matrices = [row.elements for row in transformer_parameters(LLAMA, 16) if row.name.endswith("linear.weight")]
    scores = 3 * 3 * 4 * 16 * 64
    assert training_flops_per_token(LLAMA, 16) == 6 * sum(matrices) + scores
    # one token of 16 sees all, the first sees itself: 136 of 256 scores
    assert causal_flops(LLAMA, 16) == 6 * sum(matrices) + scores * 136 / 256


def test_recomputation_is_work_but_no_more_of_the_model() -> None:
    once, selective, full = (computed_flops(GPT2, 1024, kind) for kind in ("none", "selective", "full"))  # type: ignore[arg-type]
    assert once < selective < full
    assert full / once == pytest.approx(4 / 3, rel=0.1)
