"""Estimated activations against the storages that are alive after a forward pass."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from data_tools.text.special_tokens import SpecialTokens
from megatron_patches.estimate.activations import activations
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from tests.live_bytes import watch
from tests.ranks import run_on_ranks

KINDS = ("none", "selective", "full")
SEQUENCE, HIDDEN, LAYERS = 64, 128, 3
SIZES = {"layers": LAYERS, "hidden_size": HIDDEN, "attention_heads": 4, "ffn_size": 4 * HIDDEN, "vocab_size": 192}
LLAMA = {
    "activation": "swiglu", "position_embedding": "rotary", "key_value_heads": 2, "norm": "rmsnorm", "norm_bias": False,
    "attention_bias": False, "mlp_bias": False, "tied_head": False, "ffn_size": 352,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": LLAMA,
    "bloom": {"position_embedding": "alibi", "embedding_norm": True},
    "dropout": {"hidden_dropout": 0.1, "attention_dropout": 0.1},
    "relu, one group": {"activation": "relu", "key_value_heads": 1},
    "reglu, query-key norm": {"activation": "reglu", "query_key_norm": True, "logit_soft_cap": 30.0},
    "post-norm": {"norm_placement": "post"},
    "parallel": {"parallel_residual": True},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "encoder": {},
    "encoder, untied, decoder bias": {"tied_head": False, "decoder_bias": True},
    "encoder, all logits": {},
    "encoder, tied, decoder bias, all logits": {"decoder_bias": True, "logit_soft_cap": 30.0},
    "encoder, documents see each other": {"activation": "gelu", "norm": "layernorm", "position_embedding": "learned"},
}
MODELS |= {name: {"name": "encoder", "vocab_multiple": 64, **keys} for name, keys in ENCODERS.items()}
SCORES = "gpt2, its scores written out"
MODELS[SCORES] = {}
LAYOUTS = {
    "single": Layout(1, 1, 1),
    "tensor 2": Layout(2, 1, 1),
    "sequence parallel 2": Layout(2, 1, 1, sequence_parallel=True),
}


def objective(model: str) -> dict[str, Any]:
    """What the model is trained to do."""
    if model not in ENCODERS:
        return {"name": "causal"}
    return {
        "name": "masked_lm", "masked_logits_only": "all logits" not in model, "reset_attention": "other" not in model
    }  # fmt: skip


def run(model: str, kind: str, micro_batch: int, precision: str = "fp32") -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "tr1a-1M-x", "family": "tr1-x", "why": "a test", "model": SIZES | MODELS[model],
            "objective": objective(model),
            "data": {"path": "x", "tokenizer": "x", "split": "1", "sequence_length": SEQUENCE},
            "training": {
                "steps": 1, "global_batch_size": micro_batch, "micro_batch_size": micro_batch, "precision": precision,
                "recomputation": kind, "attention_kernel": "math" if model == SCORES else "auto",
            },
            "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            "schedule": {"name": "constant"},
            "checkpoint": {"every_steps": 1},
        }
    )  # fmt: skip


def kept(layout: Layout, precision: str) -> dict[tuple[str, str, int], int]:
    """Bytes that a forward pass and its loss leave alive, of each model, kind and micro-batch."""
    import torch

    from megatron_patches.engine.build import blueprint_of
    from megatron_patches.models.build import PlainModel
    from megatron_patches.objectives.build import build_objective
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.kernels import kernels_of
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from megatron_patches.parameters.torch_dtypes import PRECISIONS

    groups = start_process_groups(layout, PRECISIONS[precision])
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    found = {}
    for name in MODELS:
        for kind in KINDS:
            for micro_batch in (1, 4):
                config = run(name, kind, micro_batch, precision)
                own = replace(groups, kernels=kernels_of(config.training))
                model = PlainModel(blueprint_of(config, own, randomness))
                made = build_objective(config.objective, 0, 0, SpecialTokens(192, frozenset({0, 1}), mask=1))
                items = {"tokens": torch.randint(192, (micro_batch, config.lengths.read))}
                batch = made(items, np.arange(micro_batch))
                randomness.start_step(1)
                with watch() as watched:
                    loss = weighted_loss(model(batch.inputs), (batch.labels, batch.weights), groups)
                found[name, kind, micro_batch] = watched.without([loss, *model.parameters()])
    return found


measured = cache(lambda layout, precision: run_on_ranks(kept, LAYOUTS[layout].world_size, LAYOUTS[layout], precision))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", MODELS)
def test_activations_are_within_a_tenth_of_what_is_alive(model: str, layout: str) -> None:
    for kind in KINDS:
        for micro_batch in (1, 4):
            config = run(model, kind, micro_batch)
            estimate = activations(config, LAYOUTS[layout], device="cpu")
            total = estimate.stem + LAYERS * estimate.blocks["layers"] + estimate.head + estimate.logits
            alive = measured(layout, "fp32")[0][model, kind, micro_batch]
            assert total == pytest.approx(alive, rel=0.1), (kind, micro_batch, total / alive)


@pytest.mark.parametrize("model", [name for name in MODELS if name not in ("dropout", SCORES)])
def test_in_bf16_too(model: str) -> None:
    """But for scores that are written out: a CPU writes them in fp32."""
    for kind in KINDS:
        config = run(model, kind, 4, "bf16")
        estimate = activations(config, LAYOUTS["single"], device="cpu")
        total = estimate.stem + LAYERS * estimate.blocks["layers"] + estimate.head + estimate.logits
        assert total == pytest.approx(measured("single", "bf16")[0][model, kind, 4], rel=0.1), kind


def test_a_gpu_keeps_narrower_masks_than_a_cpu() -> None:
    config, layout = run("dropout", "none", 4), LAYOUTS["single"]
    on_gpu, on_cpu = (activations(config, layout, device=device).blocks["layers"] for device in ("cuda", "cpu"))  # type: ignore[arg-type]
    assert on_gpu < on_cpu
