"""Every key of a section is sorted by every format: a new one fails here until it is."""

import pytest
from pydantic import create_model

from megatron_patches.configuration.fields import kind_name, section_models
from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.models.registry import all_architectures
from tests.megatron_patches.models.transformers_formats.variants import (
    MODELS,
    alternatives,
    changed,
    keys,
    section_type,
    valid,
    variants,
)

FORMATS = {each.model_type: each for kind in all_architectures() for each in kind.transformers_formats()}


def sorted_keys(form: TransformersFormat) -> set[str]:
    """The keys that a format must sort: all of the section, and those of the kinds of positions that it takes."""
    section = section_type(form.model_type)
    found = set(section.model_fields)
    for name, field in section.model_fields.items():
        for kind in section_models(field):
            model = valid(changed(MODELS[form.model_type], f"{name}.{kind_name(kind)}.name", kind_name(kind)))
            assert model is not None
            if name not in {each.setting for each in form.obstacles(model)}:
                found |= {f"{name}.{key}" for key in kind.model_fields if key != "name"}
    return found


def test_all_formats_are_looked_at() -> None:
    assert FORMATS.keys() == MODELS.keys()
    assert all(len(keys(each)) > 25 for each in FORMATS)


@pytest.mark.parametrize("model_type", FORMATS)
def test_every_key_is_sorted(model_type: str) -> None:
    form = FORMATS[model_type]
    assert set(form.taken) == sorted_keys(form)  # type: ignore[attr-defined]


@pytest.mark.parametrize("model_type", FORMATS)
def test_every_word_and_several_numbers_of_each_key_are_tried(model_type: str) -> None:
    for key, field in keys(model_type).items():
        tried = {variant.value for variant in variants(model_type) if variant.key == key}
        words = {str(value) for value in alternatives(field) if isinstance(value, str | bool | None)}
        assert words <= tried, key
        own = {str(MODELS[model_type].get(key, field.default))}
        assert tried - own or len(alternatives(field)) == 1, key


def test_a_key_that_no_format_sorts_is_not_passed_over() -> None:
    for model_type, form in FORMATS.items():
        larger = create_model("Larger", __base__=section_type(model_type), residual_scale=(float, 1.0))
        model = larger.model_validate({"name": "gpt", **MODELS[model_type]})
        with pytest.raises(KeyError, match="residual_scale"):
            form.obstacles(model)
