"""Logits of picked places alone: the same loss and gradients as with all logits, and never all logits in memory."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from data_tools.text.special_tokens import SpecialTokens
from megatron_patches.models.encoder.encoder_config import EncoderConfig
from megatron_patches.objectives.objective_config import MaskedLMConfig
from megatron_patches.parallel.layout import Layout
from tests.ranks import run_on_ranks

SEQUENCE, BATCH, VOCABULARY = 16, 3, 60
SIZES = {"name": "encoder", "layers": 2, "hidden_size": 16, "attention_heads": 4, "ffn_size": 24, "init_std": 0.2}
MODELS: dict[str, dict[str, object]] = {
    "tied": {},
    "tied, decoder bias, capped": {"decoder_bias": True, "logit_soft_cap": 2.0},
    "untied": {"tied_head": False},
    "untied, decoder bias, biases": {
        "tied_head": False, "decoder_bias": True, "norm": "layernorm", "norm_bias": True, "attention_bias": True,
        "mlp_bias": True, "activation": "gelu", "position_embedding": "learned", "norm_placement": "post",
    },
}  # fmt: skip
LAYOUTS = {
    "single": Layout(1, 1, 1),
    "tensor 2": Layout(2, 1, 1),
    "sequence parallel": Layout(2, 1, 1, sequence_parallel=True),
}
WAYS = [("none", True), ("none", False), ("selective", True), ("full", True)]
"""recomputation, and whether the logits are those of picked places"""
Found = dict[tuple[str, str, bool], tuple[float, dict[str, np.ndarray]]]


def objective(only: bool, **keys: object) -> MaskedLMConfig:
    return MaskedLMConfig.model_validate(
        {"name": "masked_lm", "probability": 0.3, "masked_logits_only": only, "reset_attention": False, **keys}
    )


def batch_of(section: MaskedLMConfig, vocabulary: int, rows: int, length: int) -> Any:
    """Samples of which two have padding, so that they have different numbers of tokens to predict; shared weights."""
    import torch

    from megatron_patches.objectives.build import build_objective

    tokens = torch.randint(4, vocabulary, (rows, length), generator=torch.Generator().manual_seed(1))
    segments = torch.zeros_like(tokens)
    segments[0, length // 2 :], segments[1, 5:] = -1, -1
    special = SpecialTokens(vocabulary, frozenset(range(4)), mask=3)
    batch = build_objective(section, 7, None, special)({"tokens": tokens, "segments": segments}, np.arange(rows))
    return batch.inputs, (batch.labels, batch.weights / batch.weights.sum())


def gradients_of(layout: Layout, dtype: str) -> Found:
    """Loss and whole gradients of each model, each way; biases are not 0, or they would hide paths of gradients."""
    import torch
    import torch.distributed as dist

    from megatron_patches.models.blueprint import draw_up
    from megatron_patches.models.build import PlainModel, canonical_parameters
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from megatron_patches.parameters.info import info_of

    groups = start_process_groups(layout, getattr(torch, dtype))
    randomness = StepRandomness(0, groups.coordinates, groups.device)

    def whole(parameter: torch.nn.Parameter) -> np.ndarray:
        info, gradient = info_of(parameter), parameter.grad
        assert gradient is not None
        everywhere = torch.zeros(info.slice.global_shape, dtype=groups.dtype)
        if not info.tensor_replicated or info.partial_gradient or groups.coordinates.tensor == 0:
            everywhere[tuple(slice(*each) for each in info.slice.box)] = gradient.view(info.slice.shape)
        dist.all_reduce(everywhere, group=groups.tensor_group)
        return everywhere.numpy()

    found: Found = {}
    for kind, switches in MODELS.items():
        model = EncoderConfig.model_validate(SIZES | {"vocab_size": VOCABULARY, "vocab_multiple": 4} | switches)
        for recomputation, only in WAYS:
            section = objective(only)
            drawn = draw_up(model, section.lengths(SEQUENCE), section.inputs, groups, randomness, 0, recomputation)  # type: ignore[arg-type]
            plain = PlainModel(drawn)
            named = canonical_parameters(plain)
            for name, parameter in named.items():
                if name.endswith("bias"):
                    parameter.data.copy_(torch.linspace(-0.2, 0.3, parameter.numel()))
            inputs, targets = batch_of(section, VOCABULARY, BATCH, SEQUENCE)
            randomness.start_step(1)
            loss = weighted_loss(plain(inputs), targets, groups)
            loss.backward()
            found[kind, recomputation, only] = (loss.item(), {name: whole(each) for name, each in named.items()})
    return found


measured = cache(lambda layout, dtype: run_on_ranks(gradients_of, LAYOUTS[layout].world_size, LAYOUTS[layout], dtype))


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", MODELS)
def test_gradients_are_those_of_all_logits(kind: str, layout: str, dtype: str, bound: float) -> None:
    for rank in measured(layout, dtype):
        loss, expected = rank[kind, "none", False]
        for recomputation, only in WAYS:
            found_loss, found = rank[kind, recomputation, only]
            assert found_loss == pytest.approx(loss, rel=bound)
            assert found.keys() == expected.keys()
            for name, gradient in expected.items():
                assert np.abs(gradient).max() > 1e-6, f"{name} has no gradient"
                assert np.abs(found[name] - gradient).max() <= bound * max(1.0, np.abs(gradient).max()), name


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_layouts_agree_in_fp64(kind: str) -> None:
    """Those without biases, which each rank sets to its own."""
    loss, expected = measured("single", "float64")[0][kind, "none", True]
    for layout in ("tensor 2", "sequence parallel"):
        for rank in measured(layout, "float64"):
            found_loss, found = rank[kind, "none", True]
            assert found_loss == pytest.approx(loss, rel=1e-12)
            for name, gradient in expected.items():
                assert np.abs(found[name] - gradient).max() < 1e-12 * max(1.0, np.abs(gradient).max()), name


LARGE = {"vocab_size": 16384, "layers": 1}
PLACES = (4, 64)
"""samples and their length"""


def peak_of_a_step(layout: Layout) -> dict[tuple[bool, bool], int]:
    """The most bytes alive at once in forward and backward pass, by whether the head is tied and places are picked."""
    import torch

    from megatron_patches.models.blueprint import draw_up
    from megatron_patches.models.build import PlainModel
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.live_bytes import watch

    groups = start_process_groups(layout, torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    found = {}
    for tied in (True, False):
        model = EncoderConfig.model_validate(SIZES | LARGE | {"tied_head": tied})
        for only in (True, False):
            section = objective(only, probability=0.15)
            plain = PlainModel(draw_up(model, section.lengths(PLACES[1]), section.inputs, groups, randomness, 0))
            inputs, targets = batch_of(section, LARGE["vocab_size"], *PLACES)
            with watch() as watched:
                weighted_loss(plain(inputs), targets, groups).backward()
            found[tied, only] = watched.peak
    return found


@pytest.mark.parametrize("layout", ["single", "sequence parallel"])
def test_all_logits_are_never_there(layout: str) -> None:
    """All logits of 256 places and 16,384 tokens would take 16 MiB in fp32; 40 of 256 places are picked."""
    for rank in run_on_ranks(peak_of_a_step, LAYOUTS[layout].world_size, LAYOUTS[layout]):
        all_logits = 4 * PLACES[0] * PLACES[1] * LARGE["vocab_size"] // LAYOUTS[layout].tensor
        for tied in (True, False):
            picked, whole = rank[tied, True], rank[tied, False]
            assert picked < all_logits < 2 * all_logits < whole
            assert whole > 3 * picked
