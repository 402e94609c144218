"""How far each of our models is from what a format makes of it, or from all that a format could be."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from megatron_patches.models.layers.transformer_config import TransformerConfig
from tests.megatron_patches.models.theirs import build, config_keys, load, logits, their_weights
from tests.megatron_patches.models.transformers_formats.own_logits import POSITIONS, OwnModels, random_weights
from tests.megatron_patches.models.transformers_formats.their_configs import their_changes
from tests.megatron_patches.models.transformers_formats.variants import MODELS, Variant, form_of, model_of


def differences(own: OwnModels, given: Sequence[Variant]) -> dict[str, tuple[float, float] | str]:
    """By title, how far our logits are from those of the nearest model of theirs, and how far ours are spread."""
    models = {model_type: changed_models(model_type) for model_type in MODELS}
    found: dict[str, tuple[float, float] | str] = {}
    for variant in given:
        model = model_of(variant.section)
        tokens = torch.randint(model.vocab_size, (2, POSITIONS), generator=torch.Generator().manual_seed(1))
        weights = random_weights(model)
        ours = own.logits(model, weights, tokens)
        others = [] if variant.taken else models[variant.model_type]
        try:
            nearest = min(distances(variant, model, weights, ours, tokens, others), default=float("inf"))
            found[variant.title] = (nearest, ours.std().item())
        except Exception as error:  # noqa: BLE001  one model's error is its own case's failure
            found[variant.title] = f"{type(error).__name__}: {error}"
    return found


def distances(
    variant: Variant,
    model: TransformerConfig,
    weights: dict[str, Tensor],
    ours: Tensor,
    tokens: Tensor,
    others: list[Any],
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
    except (KeyError, ValueError):
        return  # a parameter that they have no place for
    for theirs in [*others, *_written(variant, model)]:
        try:
            load(theirs, given, model.tied_head)
        except RuntimeError:
            continue  # they have parameters that the model has not, or of other shapes
        yield (logits(theirs, tokens) - ours).abs().max().item()


def _written(variant: Variant, model: TransformerConfig) -> list[Any]:
    """What the format would write of a model that it refuses, if that is anything."""
    try:
        return [build(variant.model_type, config_keys(form_of(variant.model_type), model, POSITIONS))]
    except (AssertionError, KeyError):
        return []


def changed_models(model_type: str) -> list[Any]:
    """Their models with one key changed, of all that transformers builds and that do another thing."""
    model = model_of(MODELS[model_type])
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
