"""Counts that are known from elsewhere."""

import pytest

from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.run.parameter_count import count_parameters
from tests.small_model import causal_lengths


def gpt(layers: int, hidden: int, heads: int, vocab: int, **rest: object) -> GPTConfig:
    settings = {"layers": layers, "hidden_size": hidden, "attention_heads": heads, "ffn_size": 4 * hidden}
    return GPTConfig.model_validate({**settings, "vocab_size": vocab, **rest})


def test_gpt2() -> None:
    count = count_parameters(gpt(12, 768, 12, 50257), causal_lengths(1024))
    assert count.total == 124_439_808
    assert count.by_part["token_embedding"] == 50257 * 768
    assert count.by_part["positions"] == 1024 * 768
    assert count.by_part["head"] == 0


def test_bloom() -> None:
    """The number on the model's card; 250,680 tokens and 200 rows of padding."""
    bloom = gpt(70, 14336, 112, 250680, vocab_multiple=512, position_embedding="alibi", embedding_norm=True)
    count = count_parameters(bloom, causal_lengths(2048))
    assert count.total == 176_247_271_424
    parts = [count.by_part[part] for part in ("positions", "head", "token_embedding")]
    assert parts == [0, 0, 250_880 * 14_336]


def test_llama_2_70b() -> None:
    """80 layers, 8 groups of heads, SwiGLU of 28,672: 68,976,648,192 parameters by its published weights."""
    llama = gpt(
        80, 8192, 64, 32000, key_value_heads=8, ffn_size=28672, activation="swiglu", norm="rmsnorm", norm_bias=False,
        attention_bias=False, mlp_bias=False, tied_head=False, position_embedding="rotary",
    )  # fmt: skip
    assert count_parameters(llama, causal_lengths(4096)).total == 68_976_648_192


@pytest.mark.parametrize(("layers", "hidden", "vocab", "sequence"), [(24, 2048, 50688, 2048), (3, 32, 100, 7)])
def test_bigscience_formula(layers: int, hidden: int, vocab: int, sequence: int) -> None:
    expected = layers * (12 * hidden**2 + 13 * hidden) + vocab * hidden + sequence * hidden + 2 * hidden
    assert count_parameters(gpt(layers, hidden, 8, vocab), causal_lengths(sequence)).total == expected


def test_parts_that_a_run_may_leave_out_or_add() -> None:
    usual = count_parameters(gpt(2, 32, 4, 100), causal_lengths(8)).total
    assert count_parameters(gpt(2, 32, 4, 100, position_embedding="none"), causal_lengths(8)).total == usual - 8 * 32
    assert count_parameters(gpt(2, 32, 4, 100, tied_head=False), causal_lengths(8)).total == usual + 100 * 32
    assert count_parameters(gpt(2, 32, 4, 100, ffn_size=127), causal_lengths(8)).total == usual - 2 * (2 * 32 + 1)
