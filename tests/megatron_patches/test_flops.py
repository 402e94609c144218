"""Floating-point work against published figures."""

import pytest

from megatron_patches.flops import peak_tflops, training_flops_per_token
from megatron_patches.models.model_config import ModelConfig
from megatron_patches.models.parameter_table import parameter_table

BLOOM = ModelConfig(layers=70, hidden_size=14336, attention_heads=112, ffn_size=4 * 14336, vocab_size=250880)


def test_bloom_does_149_tflops() -> None:
    """384 A100, 2,048 samples of 2,048 tokens in 105.22 s, with recomputation: 149.02 TFLOP/s were published.

    Recomputation runs the layers, but not the logits, a fourth time.
    """
    tokens = 2048 * 2048
    logits = 6 * BLOOM.hidden_size * BLOOM.vocab_size
    layers = training_flops_per_token(BLOOM, 2048) - logits
    assert (layers * 4 / 3 + logits) * tokens / (105.22 * 384 * 1e12) == pytest.approx(149.02, abs=0.01)


def test_gated_mlps_and_grouped_heads_cost_what_their_matrices_have() -> None:
    """Forward and backward pass cost 6 FLOPs a token for each weight of a matrix; the scores come on top."""
    llama = {"layers": 3, "hidden_size": 64, "attention_heads": 8, "key_value_heads": 2, "ffn_size": 172}
    model = ModelConfig.model_validate({**llama, "vocab_size": 96, "activation": "swiglu", "tied_head": False})
    matrices = [row.elements for row in parameter_table(model, 16) if row.name.endswith("linear.weight")]
    assert training_flops_per_token(model, 16) == 6 * sum(matrices) + 3 * 3 * 4 * 16 * 64


def test_unknown_hardware_has_no_peak() -> None:
    assert peak_tflops("NVIDIA H200", "bf16") == 989.4
    assert peak_tflops("NVIDIA H200", "fp32") is None
    assert peak_tflops("NVIDIA H200 NVL", "bf16") is None
