"""Every switch of the model changes what it computes; none is read and forgotten."""

from functools import cache

import numpy as np
import pytest
import torch

from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.parallel.layout import Layout
from tests.ranks import run_on_ranks

BASE = {"layers": 2, "hidden_size": 32, "attention_heads": 4, "ffn_size": 48, "vocab_size": 61, "init_std": 0.3}
ROTARY = {"position_embedding": {"name": "rotary"}}
GATED = {"activation": "liglu"}
# what is switched: (everything else, the switch); compared with everything else alone
SWITCHES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    **{f"activation {name}": ({}, {"activation": name}) for name in ("gelu", "relu", "liglu")},
    **{f"activation {name}": (GATED, {"activation": name}) for name in ("geglu", "reglu", "swiglu")},
    **{f"positions {name}": ({}, {"position_embedding": name}) for name in ("rotary", "alibi", "none")},
    "rotary theta": (ROTARY, {"position_embedding": {"name": "rotary", "theta": 500.0}}),
    "rotary fraction": (ROTARY, {"position_embedding": {"name": "rotary", "fraction": 0.5}}),
    "rotary pairs": (ROTARY, {"position_embedding": {"name": "rotary", "pairs": "interleaved"}}),
    "norm": ({"norm_bias": False}, {"norm": "rmsnorm"}),
    "norm placement": ({}, {"norm_placement": "post"}),
    "norm epsilon": ({}, {"norm_epsilon": 1e-2}),
    "norm bias": ({}, {"norm_bias": False}),
    "embedding norm": ({}, {"embedding_norm": True}),
    "query-key norm": ({}, {"query_key_norm": True}),
    "parallel residual": ({}, {"parallel_residual": True}),
    "attention bias": ({}, {"attention_bias": False}),
    "mlp bias": ({}, {"mlp_bias": False}),
    "grouped heads": ({}, {"key_value_heads": 2}),
    "multi-query": ({"key_value_heads": 2}, {"key_value_heads": 1}),
    "tied head": ({}, {"tied_head": False}),
    "logit soft cap": ({}, {"logit_soft_cap": 1.0}),
    "hidden dropout": ({"embedding_dropout": 0.0}, {"hidden_dropout": 0.1}),
    "attention dropout": ({}, {"attention_dropout": 0.1}),
    "embedding dropout": ({}, {"embedding_dropout": 0.1}),
    "embedding dropout left to hidden dropout": ({"hidden_dropout": 0.1}, {"embedding_dropout": 0.0}),
    "init std": ({}, {"init_std": "small"}),
    "init std of Megatron-530B": ({"init_std": "small"}, {"init_std": "megatron_530b"}),
    "init residual scaling": ({}, {"init_residual_scaling": False}),
    "vocabulary multiple": ({}, {"vocab_multiple": 8}),
}
REPEATED = "the same again"


def losses(models: dict[str, GPTConfig]) -> dict[str, list[float]]:
    """Of each model its losses before and after a step of SGD: biases are zero in the first."""
    from megatron_patches.objectives.loss import weighted_loss
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness
    from tests.small_model import plain_model

    groups = start_process_groups(Layout(1, 1, 1), torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    tokens = torch.randint(61, (2, 12), generator=torch.Generator().manual_seed(1))
    found = {}
    for name, model in models.items():
        plain = plain_model(model, 12, groups, randomness)
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.01)
        found[name] = []
        for step in (1, 2):
            randomness.start_step(step)
            loss = weighted_loss(plain({"tokens": tokens}), (tokens.roll(-1, 1), torch.ones(tokens.shape)), groups)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found[name].append(loss.item())
    return found


@cache
def _losses() -> dict[str, list[float]]:
    models = {REPEATED: GPTConfig.model_validate(BASE)}
    for name, (rest, switch) in SWITCHES.items():
        models[f"{name}: off"] = GPTConfig.model_validate(BASE | rest)
        models[f"{name}: on"] = GPTConfig.model_validate(BASE | rest | switch)
    return run_on_ranks(losses, 1, models)[0]


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_changes_the_loss(name: str) -> None:
    off, on = _losses()[f"{name}: off"], _losses()[f"{name}: on"]
    assert np.isfinite([*off, *on]).all()
    assert max(abs(a - b) for a, b in zip(off, on, strict=True)) > 1e-4
    assert _losses()[REPEATED] == _losses()["mlp bias: off"], "the same model has the same losses"


def kept_features(layout: Layout) -> list[bool]:
    """Which features of a stream of ones a dropout keeps on this rank."""
    from megatron_patches.models.layers.dropout import FeatureDropout
    from megatron_patches.parallel.process_groups import start_process_groups
    from megatron_patches.parallel.randomness import StepRandomness

    groups = start_process_groups(layout, torch.float32)
    randomness = StepRandomness(0, groups.coordinates, groups.device)
    randomness.start_step(1)
    return (FeatureDropout(0.5, groups, randomness)(torch.ones(4, 2, 8)) > 0).flatten().tolist()


def test_ranks_drop_alike_what_both_hold_and_apart_what_each_holds_alone() -> None:
    first, second = run_on_ranks(kept_features, 2, Layout(2, 1, 1))
    assert first == second and 10 < sum(first) < 54
    first, second = run_on_ranks(kept_features, 2, Layout(2, 1, 1, sequence_parallel=True))
    assert first != second
