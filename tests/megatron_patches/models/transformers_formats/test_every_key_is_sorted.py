"""Every key of a GPT's section is sorted by every format: a new one fails here until it is."""

import pytest

from megatron_patches.configuration.fields import kind_name, section_models
from megatron_patches.models.gpt.architecture import GPT
from megatron_patches.models.gpt.gpt_config import GPTConfig
from megatron_patches.models.interface.transformers_format import TransformersFormat
from tests.megatron_patches.models.transformers_formats.variants import (
    MODELS,
    alternatives,
    changed,
    keys,
    valid,
    variants,
)

FORMATS = {each.model_type: each for each in GPT().transformers_formats()}


def sorted_keys(form: TransformersFormat) -> set[str]:
    """The keys that a format must sort: all of the section, and those of the kinds of positions that it takes."""
    found = set(GPTConfig.model_fields)
    for name, field in GPTConfig.model_fields.items():
        for kind in section_models(field):
            model = valid(changed(MODELS[form.model_type], f"{name}.{kind_name(kind)}.name", kind_name(kind)))
            assert model is not None
            if name not in {each.setting for each in form.obstacles(model)}:
                found |= {f"{name}.{key}" for key in kind.model_fields if key != "name"}
    return found


def test_all_formats_are_looked_at() -> None:
    assert FORMATS.keys() == MODELS.keys()
    assert len(keys()) > 25


@pytest.mark.parametrize("model_type", FORMATS)
def test_every_key_is_sorted(model_type: str) -> None:
    form = FORMATS[model_type]
    assert set(form.taken) == sorted_keys(form)  # type: ignore[attr-defined]


@pytest.mark.parametrize("model_type", FORMATS)
def test_every_word_and_several_numbers_of_each_key_are_tried(model_type: str) -> None:
    for key, field in keys().items():
        tried = {variant.value for variant in variants(model_type) if variant.key == key}
        words = {str(value) for value in alternatives(field) if isinstance(value, str | bool | None)}
        assert words <= tried, key
        own = {str(MODELS[model_type].get(key, field.default))}
        assert tried - own or len(alternatives(field)) == 1, key


def test_a_key_that_no_format_sorts_is_not_passed_over() -> None:
    class Larger(GPTConfig):
        residual_scale: float = 1.0

    model = Larger.model_validate(MODELS["llama"])
    for form in FORMATS.values():
        with pytest.raises(KeyError, match="residual_scale"):
            form.obstacles(model)
