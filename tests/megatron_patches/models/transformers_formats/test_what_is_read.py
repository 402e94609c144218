"""Every key of a `config.json` is understood as transformers does, or refused with its name, or does nothing."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from megatron_patches.errors import Refused
from megatron_patches.models.layers.model_config import ModelConfig
from tests.megatron_patches.models.theirs import build, config_keys, logits, own_weights
from tests.megatron_patches.models.transformers_formats.own_logits import POSITIONS, OwnModels
from tests.megatron_patches.models.transformers_formats.their_configs import their_changes
from tests.megatron_patches.models.transformers_formats.variants import MODELS, form_of
from tests.ranks import run_on_ranks

CAUTIOUS = {
    "gpt2": {"is_encoder_decoder", "add_cross_attention"},
    "bloom": {"is_encoder_decoder"},
    "llama": {"is_encoder_decoder", "partial_rotary_factor"},
    "gpt_neox": {"is_encoder_decoder", "rope_theta", "partial_rotary_factor"},
}
"""keys that are refused though this version of transformers computes the same: others do not"""
ELSEWHERE = ("gelu_10", "dynamic")
"""values that differ for features, or lengths, that these models have not"""
DEPEND = {"n_embd", "hidden_size", "num_attention_heads", "num_key_value_heads"}
"""sizes that are refused by what they do not divide"""
GENERATION = {"sliding_window", "attention_chunk_size", "layer_types"}
"""keys that change what the cache keeps, which one pass does not show"""


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


def answers() -> dict[str, list[Answer]]:
    """For each format one for each change."""
    own, found = OwnModels(), {}
    for model_type, section in MODELS.items():
        keys = config_keys(form_of(model_type), ModelConfig.model_validate(section), POSITIONS)
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
        model, positions = ModelConfig.model_validate(read.section), read.positions or POSITIONS
        if built is not None:
            ours = own.logits(model, own_weights(form, model, positions, built), tokens, positions)
            distance = (ours - said).abs().max().item()
    except (Refused, ValidationError) as error:
        refused = str(error)
    other = said.shape != plain.shape or not torch.equal(said, plain)
    return Answer(key, str(value), built is not None, other, refused, distance)


@pytest.fixture(scope="module")
def found() -> dict[str, list[Answer]]:
    """By format; one process reads all of them."""
    return run_on_ranks(answers, 1)[0]


@pytest.mark.parametrize("model_type", MODELS)
def test_a_key_is_understood_or_refused_by_name(model_type: str, found: dict[str, list[Answer]]) -> None:
    read = [each for each in found[model_type] if each.built and not each.refused]
    assert sum(each.other for each in read) >= 5
    assert [each for each in read if each.distance > 1e-4] == []
    refused = [each for each in found[model_type] if each.refused and each.key not in DEPEND]
    assert [each for each in refused if each.key not in each.refused] == []


@pytest.mark.parametrize("model_type", MODELS)
def test_no_key_is_refused_that_does_nothing(model_type: str, found: dict[str, list[Answer]]) -> None:
    refused = [each for each in found[model_type] if each.refused and each.built]
    assert len([each for each in refused if each.other]) >= 2
    known = CAUTIOUS[model_type] | GENERATION
    for each in refused:
        assert each.other or any(key in each.refused for key in known) or any(v in each.value for v in ELSEWHERE), each


@pytest.mark.parametrize("model_type", ["llama", "gpt_neox"])
def test_scaled_angles_are_refused(model_type: str, found: dict[str, list[Answer]]) -> None:
    scaled = [each for each in found[model_type] if each.key.startswith("rope_") and "factor" in each.value]
    kinds = [each for each in scaled if "partial" not in each.value]
    assert len(kinds) >= 10
    assert all("rope_type" in each.refused or "type is" in each.refused for each in kinds)
