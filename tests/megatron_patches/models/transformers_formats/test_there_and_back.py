"""Weights and configurations go to each format and come back as they were."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.models.parameter_table import parameter_table
from tests.megatron_patches.models.theirs import config_keys
from tests.megatron_patches.models.transformers_formats.variants import (
    MODELS,
    alternatives,
    changed,
    form_of,
    keys,
    model_of,
    valid,
)
from tests.small_model import causal_lengths

POSITIONS = 12
ALWAYS_LOST = {"vocab_multiple", "init_std", "init_residual_scaling"}
"""what a `config.json` does not say: how the table is padded and how weights were drawn"""
LOST = {
    "gpt2": {"norm_bias", "attention_bias", "mlp_bias"},
    "bloom": {"norm_bias", "attention_bias", "mlp_bias", "embedding_dropout"},
    "llama": {"hidden_dropout", "embedding_dropout"},
    "eurobert": {"hidden_dropout", "embedding_dropout", "mlp_bias", "decoder_bias", "gated_width", "ffn_size"},
    "gpt_neox": {"norm_bias", "mlp_bias", "embedding_dropout"},
}
"""biases that are written as zeros, and dropout that the architecture has not"""


@st.composite
def models(draw: st.DrawFn) -> tuple[str, TransformerConfig]:
    """A format and a model that it takes: its own small one with several keys changed."""
    model_type = draw(st.sampled_from(sorted(MODELS)))
    section: dict[str, Any] = dict(MODELS[model_type])
    for key in draw(st.lists(st.sampled_from(sorted(keys(model_type))), max_size=8, unique=True)):
        other = changed(section, key, draw(st.sampled_from(alternatives(keys(model_type)[key]))))
        model = valid(other)
        if model is not None and not form_of(model_type).obstacles(model):
            section = other
    model = valid(section)
    assert model is not None
    return model_type, model


many = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@many
@given(models(), st.sampled_from([torch.float32, torch.bfloat16]), st.integers(0, 9))
def test_tensors_come_back_bit_for_bit(
    given_model: tuple[str, TransformerConfig], dtype: torch.dtype, seed: int
) -> None:
    model_type, model = given_model
    form, rows = form_of(model_type), parameter_table(model, causal_lengths(POSITIONS))
    pairs = form.pairs(model, rows)
    assert [pair.ours for pair in pairs] == [row.name for row in rows]
    names = [name for pair in pairs for name in pair.theirs] + [each.name for each in form.filled(model)]
    assert len(set(names)) == len(names)
    assert all(form.current_name(name) == name and not form.ignored(name) for name in names)
    generator = torch.Generator().manual_seed(seed)
    for row, pair in zip(rows, pairs, strict=True):
        tensor = _any_bits(row.shape, dtype, generator)
        whole = tensor[: model.vocab_size] if row.row_for_each == "vocabulary" else tensor
        parts = pair.split(tensor)
        assert len(parts) == len(pair.theirs)
        assert sum(part.numel() for part in parts) == whole.numel()
        assert torch.equal(_bits(pair.join([part.contiguous() for part in parts])), _bits(whole))


def _any_bits(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Not numbers and infinities among them."""
    integers = torch.int32 if dtype == torch.float32 else torch.int16
    limits = torch.iinfo(integers)
    return torch.randint(limits.min, limits.max, shape, dtype=integers, generator=generator).view(dtype)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)


@many
@given(models())
def test_a_configuration_comes_back(given_model: tuple[str, TransformerConfig]) -> None:
    model_type, model = given_model
    read = form_of(model_type).read(config_keys(form_of(model_type), model, POSITIONS))
    back = model_of(read.section)
    otherwise = ALWAYS_LOST | LOST[model_type] | {"key_value_heads", "embedding_dropout"}
    assert back.model_dump(exclude=otherwise) == model.model_dump(exclude=otherwise)
    if "embedding_dropout" not in LOST[model_type]:
        assert back.dropout_of_embedding == model.dropout_of_embedding
    assert (back.groups, back.mlp_width) == (model.groups, model.mlp_width)
    assert back.deviation == min(model.deviation, 1.0 if model_type in ("llama", "eurobert") else model.deviation)
    assert read.positions == (None if model_type == "bloom" else POSITIONS)


@pytest.mark.parametrize("model_type", MODELS)
def test_names_of_the_model_without_its_head_are_known(model_type: str) -> None:
    form, model = form_of(model_type), model_of(MODELS[model_type])
    names = [name for pair in form.pairs(model, parameter_table(model, causal_lengths(8))) for name in pair.theirs]
    for name in names:
        assert form.current_name(name.removeprefix(f"{form.base}.")) == name


def test_old_names_are_known() -> None:
    assert form_of("gpt_neox").current_name("embed_out.weight") == "lm_head.weight"
    for model_type, name in {
        "gpt2": "h.0.attn.bias", "llama": "model.layers.0.self_attn.rotary_emb.inv_freq",
        "gpt_neox": "gpt_neox.layers.3.attention.masked_bias",
    }.items():  # fmt: skip
        assert form_of(model_type).ignored(name)
        assert form_of(model_type).ignored(form_of(model_type).current_name(name))
    assert not form_of("gpt_neox").ignored("gpt_neox.layers.3.attention.dense.bias")
    assert not form_of("gpt2").ignored("transformer.h.0.attn.c_attn.bias")
