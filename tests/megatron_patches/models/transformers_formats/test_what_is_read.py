"""Every key of a `config.json` is understood as transformers does, or refused with its name, or does nothing."""

import pytest

from tests.megatron_patches.models.transformers_formats.readings import Answer
from tests.megatron_patches.models.transformers_formats.variants import MODELS

CAUTIOUS = {
    "gpt2": {"is_encoder_decoder", "add_cross_attention"},
    "bloom": {"is_encoder_decoder"},
    "llama": {"is_encoder_decoder", "partial_rotary_factor"},
    "eurobert": {"is_encoder_decoder", "partial_rotary_factor"},
    "gpt_neox": {"is_encoder_decoder", "rope_theta", "partial_rotary_factor"},
}
"""keys that are refused though this version of transformers computes the same: others do not"""
ELSEWHERE = ("gelu_10", "dynamic")
"""values that differ for features, or lengths, that these models have not"""
DEPEND = {"n_embd", "hidden_size", "num_attention_heads", "num_key_value_heads"}
"""sizes that are refused by what they do not divide"""
GENERATION = {"sliding_window", "attention_chunk_size", "layer_types"}
"""keys that change what the cache keeps, which one pass does not show"""


@pytest.mark.parametrize("model_type", MODELS)
def test_a_key_is_understood_or_refused_by_name(model_type: str, readings: dict[str, list[Answer]]) -> None:
    read = [each for each in readings[model_type] if each.built and not each.refused]
    assert sum(each.other for each in read) >= 5
    assert [each for each in read if each.distance > 1e-4] == []
    refused = [each for each in readings[model_type] if each.refused and each.key not in DEPEND]
    assert [each for each in refused if each.key not in each.refused] == []


@pytest.mark.parametrize("model_type", MODELS)
def test_no_key_is_refused_that_does_nothing(model_type: str, readings: dict[str, list[Answer]]) -> None:
    refused = [each for each in readings[model_type] if each.refused and each.built]
    assert len([each for each in refused if each.other]) >= 2
    known = CAUTIOUS[model_type] | GENERATION
    for each in refused:
        assert each.other or any(key in each.refused for key in known) or any(v in each.value for v in ELSEWHERE), each


@pytest.mark.parametrize("model_type", ["llama", "eurobert", "gpt_neox"])
def test_scaled_angles_are_refused(model_type: str, readings: dict[str, list[Answer]]) -> None:
    scaled = [each for each in readings[model_type] if each.key.startswith("rope_") and "factor" in each.value]
    kinds = [each for each in scaled if "partial" not in each.value]
    assert len(kinds) >= 10
    assert all("rope_type" in each.refused or "type is" in each.refused for each in kinds)
