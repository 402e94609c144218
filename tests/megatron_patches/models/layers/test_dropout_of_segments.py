"""Dropped attention weights of segments: a recomputation drops the same ones, and tensor-parallel ranks others."""

from functools import cache
from typing import Any

import pytest
import torch

from megatron_patches.batch.fields import DOCUMENTS, POSITIONS, TOKENS, ModelInputs
from megatron_patches.models.encoder.encoder_config import EncoderConfig
from megatron_patches.parallel.layout import Layout
from tests.megatron_patches.models.layers.test_recomputation import BATCH, DROPOUTS, KINDS, LAYOUTS, SEQUENCE, SIZES
from tests.ranks import run_on_ranks

MODELS: dict[str, dict[str, object]] = {
    "rotary": {},
    "alibi, one head of keys": {"position_embedding": "alibi", "key_value_heads": 1},
}
Found = dict[tuple[str, str], list[Any]]


def trained(layout: Layout) -> tuple[Found, list[float]]:
    """Gradients of two micro-batches by model and recomputation, and what a layer makes of ones, half of them dropped.

    The micro-batches have other segments, as those of a run have.
    """
    from megatron_patches.models.attention.segments import find_segments
    from megatron_patches.models.layers.attention import SelfAttention
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.small_model import plain_model

    groups = start_process_groups(layout, torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    inputs = ModelInputs((TOKENS, POSITIONS, DOCUMENTS), "documents", within_documents=True)
    tokens = torch.randint(64, (BATCH, SEQUENCE), generator=torch.Generator().manual_seed(1))
    places = torch.arange(SEQUENCE).expand(BATCH, -1)
    found: Found = {}
    attention = None
    for name, switches in MODELS.items():
        model = EncoderConfig.model_validate(SIZES | DROPOUTS | {"name": "encoder"} | switches)
        for kind in KINDS:
            plain = plain_model(model, SEQUENCE, groups, randomness, kind, inputs=inputs)
            randomness.start_step(2)
            for length in (5, 16):
                fields = {"tokens": tokens, "positions": places % length, "documents": places // length}
                weighted_loss(plain(fields), (tokens, torch.ones(tokens.shape)), groups).backward()
            found[name, kind] = [each.grad.numpy() for each in plain.parameters() if each.grad is not None]
            attention = next(each for each in plain.modules() if isinstance(each, SelfAttention))
    assert attention is not None
    ones = torch.ones(BATCH, attention.heads_here, SEQUENCE, attention.head_size)
    made = attention._compute(ones, ones, ones, find_segments(places // 8, causal=False), None, 0.5)
    return found, made.flatten().tolist()


on_ranks = cache(lambda layout: run_on_ranks(trained, LAYOUTS[layout].world_size, LAYOUTS[layout]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_recomputation_drops_the_same_weights(layout: str) -> None:
    for found, _ in on_ranks(layout):
        for model in MODELS:
            expected = found[model, "none"]
            for kind in ("selective", "full"):
                pairs = zip(found[model, kind], expected, strict=True)
                assert all((gradient == reference).all() for gradient, reference in pairs), (model, kind)


@pytest.mark.parametrize("layout", ["tensor 2", "sequence parallel 2"])
def test_ranks_drop_other_weights_of_their_heads(layout: str) -> None:
    first, second = (torch.tensor(made) for _, made in on_ranks(layout))
    for made in (first, second):
        assert 0.9 < made.mean() < 1.1 and made.std() > 0.1, "half of the weights are dropped, the others doubled"
    assert (first != second).float().mean() > 0.5
