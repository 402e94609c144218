"""Estimated activations against the storages that are alive, where attention stays within segments of samples."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from megatron_patches.estimate.activations import activations
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from tests.live_bytes import watch
from tests.megatron_patches.estimate import test_activations as of_others
from tests.megatron_patches.estimate.test_activations import KINDS, LAYERS, LLAMA, SEQUENCE
from tests.ranks import run_on_ranks

MICRO_BATCHES = (1, 4)
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": LLAMA,
    "llama without shared keys": LLAMA | {"key_value_heads": 4},
    "bloom": {"position_embedding": "alibi"},
    "dropout": {"attention_dropout": 0.1},
    "query-key norm": {"query_key_norm": True},
}
SINGLE = Layout(1, 1, 1)


def run(model: str, kind: str, micro_batch: int) -> RunConfig:
    plain = of_others.run("gpt2", kind, micro_batch).model_dump(exclude_unset=True)
    sizes: Mapping[str, Any] = of_others.SIZES | MODELS[model]
    objective = {"name": "causal", "reset_attention": True}
    return RunConfig.model_validate(plain | {"model": sizes, "objective": objective})


def kept() -> dict[tuple[str, str, int], int]:
    """Bytes that a forward pass and its loss leave alive, of each model, kind and micro-batch."""
    import torch

    from megatron_patches.engine.build import blueprint_of
    from megatron_patches.models.build import PlainModel
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.kernels import kernels_of
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness

    groups = start_process_groups(SINGLE, torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    found = {}
    for name in MODELS:
        for kind in KINDS:
            for micro_batch in MICRO_BATCHES:
                config = run(name, kind, micro_batch)
                own = replace(groups, kernels=kernels_of(config.training))
                model = PlainModel(blueprint_of(config, own, randomness))
                tokens = torch.randint(192, (micro_batch, SEQUENCE))
                # texts of 5 and 11 tokens take turns, so that those of one length are brought together; weights that
                # are written out are counted as of one text, the most there can be
                places = torch.arange(SEQUENCE).expand(micro_batch, -1)
                documents = torch.zeros_like(places) if name == "dropout" else 2 * (places // 16) + (places % 16 >= 5)
                randomness.start_step(1)
                with watch() as watched:
                    logits = model({"tokens": tokens, "documents": documents})
                    loss = weighted_loss(logits, (tokens, torch.ones(tokens.shape)), groups)
                found[name, kind, micro_batch] = watched.without([loss, *model.parameters()])
    return found


measured = cache(lambda: run_on_ranks(kept, 1)[0])


@pytest.mark.parametrize("model", MODELS)
def test_activations_are_within_a_tenth_of_what_is_alive(model: str) -> None:
    for kind in KINDS:
        for micro_batch in MICRO_BATCHES:
            estimate = activations(run(model, kind, micro_batch), SINGLE, device="cpu")
            total = estimate.stem + LAYERS * estimate.blocks["layers"] + estimate.head + estimate.logits
            alive = measured()[model, kind, micro_batch]
            assert total == pytest.approx(alive, rel=0.1), (kind, micro_batch, total / alive)
