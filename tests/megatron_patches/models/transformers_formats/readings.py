"""What a format reads in each changed `config.json`, beside what transformers computes of it."""

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError

from megatron_patches.errors import Refused
from tests.megatron_patches.models.theirs import build, config_keys, logits, own_weights
from tests.megatron_patches.models.transformers_formats.own_logits import POSITIONS, OwnModels
from tests.megatron_patches.models.transformers_formats.their_configs import their_changes
from tests.megatron_patches.models.transformers_formats.variants import MODELS, form_of, model_of


@dataclass(frozen=True)
class Answer:
    """What came of one change of a `config.json`."""

    key: str
    value: str
    built: bool
    """whether transformers makes a model of it"""
    other: bool = False
    """whether that computes another thing than without the change"""
    refused: str = ""
    """how it was refused"""
    distance: float = 0.0
    """between the logits of the model that was read and theirs"""


def answers(own: OwnModels) -> dict[str, list[Answer]]:
    """For each format one for each change."""
    found = {}
    for model_type, section in MODELS.items():
        keys = config_keys(form_of(model_type), model_of(section), POSITIONS)
        plain = logits(build(model_type, keys), torch.arange(POSITIONS)[None])
        found[model_type] = [
            answer(own, model_type, keys, key, value, plain) for key, value in their_changes(model_type, keys)
        ]
    return found


def answer(own: OwnModels, model_type: str, keys: dict[str, Any], key: str, value: Any, plain: torch.Tensor) -> Answer:
    form, changed, tokens = form_of(model_type), {**keys, key: value}, torch.arange(POSITIONS)[None]
    built, said, refused, distance = None, plain, "", 0.0
    try:
        built = build(model_type, changed)
        said = logits(built, tokens)
    except Exception:  # noqa: BLE001  whatever transformers says of a configuration that is none
        built = None
    try:
        read = form.read(changed)
        model, positions = model_of(read.section), read.positions or POSITIONS
        if built is not None:
            ours = own.logits(model, own_weights(form, model, positions, built), tokens, positions)
            distance = (ours - said).abs().max().item()
    except (Refused, ValidationError) as error:
        refused = str(error)
    except (KeyError, RuntimeError, AssertionError):
        distance = float("inf")  # its weights do not fit the model that was read
    other = said.shape != plain.shape or not torch.equal(said, plain)
    return Answer(key, str(value), built is not None, other, refused, distance)
