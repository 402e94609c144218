"""What a format says it takes, transformers computes; what it refuses, transformers computes with no setting."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_patches.models.layers.model_config import ModelConfig
from tests.megatron_patches.models.theirs import build, config_keys, load, logits, their_weights
from tests.megatron_patches.models.transformers_formats.own_logits import POSITIONS, OwnModels
from tests.megatron_patches.models.transformers_formats.their_configs import their_changes
from tests.megatron_patches.models.transformers_formats.variants import MODELS, Variant, form_of, variants
from tests.ranks import run_on_ranks

ALL = [variant for model_type in MODELS for variant in variants(model_type)]
TAKEN = [variant for variant in ALL if variant.taken]
REFUSED = [variant for variant in ALL if not variant.taken]
NEAREST = 1e-4
"""two models say the same where no logit, of a size about 1, differs by more"""


def differences(given: list[Variant]) -> dict[str, tuple[float, float]]:
    """By title, how far our logits are from those of the nearest model of theirs, and how far ours are spread."""
    own, models = OwnModels(), {model_type: changed_models(model_type) for model_type in MODELS}
    found = {}
    for variant in given:
        model = ModelConfig.model_validate(variant.section)
        tokens = torch.randint(model.vocab_size, (2, POSITIONS), generator=torch.Generator().manual_seed(1))
        weights = own.random_weights(model)
        ours = own.logits(model, weights, tokens)
        others = [] if variant.taken else models[variant.model_type]
        nearest = min(distances(variant, model, weights, ours, tokens, others), default=float("inf"))
        found[variant.title] = (nearest, ours.std().item())
    return found


def distances(
    variant: Variant, model: ModelConfig, weights: dict[str, Tensor], ours: Tensor, tokens: Tensor, others: list[Any]
) -> Iterator[float]:
    """From ours to the model that the format writes, and to each of others that can hold the weights."""
    form = form_of(variant.model_type)
    if variant.taken:
        theirs = build(variant.model_type, config_keys(form, model, POSITIONS))
        load(theirs, their_weights(form, model, POSITIONS, weights), model.tied_head)
        yield (logits(theirs, tokens) - ours).abs().max().item()
        return
    try:
        given = their_weights(form, model, POSITIONS, weights)
    except KeyError:
        return  # a parameter that they have no place for
    for theirs in others:
        try:
            load(theirs, given, model.tied_head)
        except RuntimeError:
            continue  # they have parameters that the model has not, or of other shapes
        yield (logits(theirs, tokens) - ours).abs().max().item()


def changed_models(model_type: str) -> list[Any]:
    """Their models with one key changed, of all that transformers builds and that do another thing."""
    model = ModelConfig.model_validate(MODELS[model_type])
    keys = config_keys(form_of(model_type), model, POSITIONS)
    tokens = torch.arange(POSITIONS)[None]
    first = build(model_type, keys)
    found, said = [first], [logits(first, tokens)]
    for key, value in their_changes(model_type, keys):
        try:
            theirs = build(model_type, {**keys, key: value})
            answer = logits(theirs, tokens)
        except Exception:  # noqa: BLE001  whatever transformers says of a configuration that is none
            continue
        if all(answer.shape != each.shape or not torch.equal(answer, each) for each in said):
            found.append(theirs)
            said.append(answer)
    return found


@cache
def _differences() -> dict[str, tuple[float, float]]:
    (found,) = run_on_ranks(differences, 1, ALL)
    return found


@pytest.mark.parametrize("variant", TAKEN, ids=[variant.title for variant in TAKEN])
def test_what_is_taken_is_expressed(variant: Variant) -> None:
    distance, spread = _differences()[variant.title]
    assert spread > 0.3, "logits that are all alike would agree with anything"
    assert distance <= NEAREST


@pytest.mark.parametrize("variant", REFUSED, ids=[variant.title for variant in REFUSED])
def test_what_is_refused_has_no_expression(variant: Variant) -> None:
    distance, _ = _differences()[variant.title]
    assert distance > 10 * NEAREST
