"""Floating-point work against published figures."""

import pytest

from megatron_patches.batch.fields import PICKED
from megatron_patches.models.encoder.encoder_config import EncoderConfig
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.transformer.flops import (
    active_parameters,
    bidirectional_flops_per_token,
    bigscience_flops,
    causal_flops,
    computed_flops,
    palm_flops,
    training_flops_per_token,
)
from megatron_patches.models.transformer.parameters import transformer_parameters
from megatron_patches.objectives.objective_config import MaskedLMConfig
from tests.ranks import run_on_ranks

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


LENGTH, SAMPLES = 32, 3
ENCODERS: dict[str, dict[str, object]] = {
    "NeoBERT": {},
    "untied, grouped heads": {"tied_head": False, "key_value_heads": 2, "decoder_bias": True},
    "gelu": {"activation": "gelu", "position_embedding": "learned"},
}
WAYS = [(only, kind) for only in (True, False) for kind in ("none", "selective", "full")]


def encoder(kind: str) -> EncoderConfig:
    sizes = {"name": "encoder", "layers": 3, "hidden_size": 32, "attention_heads": 4, "ffn_size": 84, "vocab_size": 200}
    return EncoderConfig.model_validate(sizes | ENCODERS[kind])


def counted_by_torch() -> dict[tuple[str, bool, str], int]:
    """FLOPs of matrices in forward and backward pass, attention by its own matrices."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from megatron_patches.models.blueprint import draw_up
    from megatron_patches.models.build import PlainModel
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.kernels import Kernels
    from megatron_patches.parallel.layout import Layout
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness

    groups = start_process_groups(Layout(1, 1, 1), torch.float32, kernels=Kernels(attention="math"))
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    found = {}
    for kind in ENCODERS:
        for only, recomputation in WAYS:
            objective = MaskedLMConfig(name="masked_lm", masked_logits_only=only, reset_attention=False)
            lengths, inputs = objective.lengths(LENGTH), objective.inputs
            model = PlainModel(draw_up(encoder(kind), lengths, inputs, groups, randomness, 0, recomputation))  # type: ignore[arg-type]
            given = {"tokens": torch.randint(200, (SAMPLES, LENGTH))}
            places = lengths.of("picked") if only else LENGTH
            if inputs.has(PICKED):
                given["picked"] = torch.arange(places).expand(SAMPLES, -1)
            randomness.start_step(1)
            with FlopCounterMode(display=False) as counter:
                targets = torch.zeros(SAMPLES, places, dtype=torch.int64), torch.ones(SAMPLES, places)
                weighted_loss(model(given), targets, groups).backward()
            found[kind, only, recomputation] = counter.get_total_flops()
    return found


def test_encoders_compute_what_torch_counts() -> None:
    """Attention sees all tokens, and the logits are those of picked places.

    Of what is computed again torch leaves out the last product, whose result nothing needs; kernels other than `math`
    have no such parts.
    """
    (counted,) = run_on_ranks(counted_by_torch, 1)
    for (kind, only, recomputation), flops in counted.items():
        lengths = MaskedLMConfig(name="masked_lm", masked_logits_only=only).lengths(LENGTH)
        told = bidirectional_flops_per_token(encoder(kind), lengths, recomputation)  # type: ignore[arg-type]
        without = bidirectional_flops_per_token(encoder(kind), lengths)
        here = flops / (SAMPLES * LENGTH)
        assert here == told.computed if recomputation == "none" else without.computed < here <= told.computed
        assert told.causal == without.causal == without.computed, "recomputation is no more of the model"
        assert told.palm == palm_flops(encoder(kind), LENGTH)
