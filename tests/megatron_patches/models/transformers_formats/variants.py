"""Models that differ from a small one of each format by one key of their section, read off the section's fields."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from megatron_patches.configuration.fields import kind_name, section_models
from megatron_patches.models import registry
from megatron_patches.models.interface.transformers_format import TransformersFormat
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.transformers_exchange.choice import format_of

SIZES = {"layers": 2, "hidden_size": 48, "attention_heads": 6, "vocab_size": 61}
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {**SIZES, "ffn_size": 48},
    "bloom": {**SIZES, "ffn_size": 192, "position_embedding": {"name": "alibi"}, "embedding_norm": True},
    "llama": {
        **SIZES, "ffn_size": 48, "position_embedding": {"name": "rotary"}, "activation": "swiglu", "norm": "rmsnorm",
        "norm_bias": False, "attention_bias": False, "mlp_bias": False, "tied_head": False,
    },
    "eurobert": {
        **SIZES, "name": "encoder", "ffn_size": 48, "gated_width": "as_given", "vocab_multiple": 1, "tied_head": False,
    },
    "gpt_neox": {
        **SIZES, "ffn_size": 48, "position_embedding": {"name": "rotary", "fraction": 0.25}, "activation": "gelu",
        "parallel_residual": True, "tied_head": False,
    },
}  # fmt: skip
"""a `model:` section that each format takes"""
NUMBERS = {int: (1, 2, 3, 8, 96, 384), float: (1e-3, 0.5, 1.0, 2.5)}
BOUNDS = {"layers": (1, 3), "hidden_size": (8, 96), "vocab_size": (8, 96)}
"""numbers between which a model says anything, and says it quickly"""


@dataclass(frozen=True)
class Variant:
    """A model with another value of one key, and with what else that value needs."""

    model_type: str
    key: str
    value: str
    section: Mapping[str, Any]
    taken: bool
    """whether the format says that it expresses it"""

    @property
    def title(self) -> str:
        return f"{self.model_type}: {self.key} {self.value}"


def form_of(model_type: str) -> TransformersFormat:
    """The format alone."""
    return format_of(model_type)[1]


def model_of(section: Mapping[str, Any]) -> TransformerConfig:
    """The model of a section."""
    model = registry.MODELS.validate(section)
    assert isinstance(model, TransformerConfig)
    return model


def section_type(model_type: str) -> type[TransformerConfig]:
    """The class of section that a format takes."""
    return type(model_of(MODELS[model_type]))


@cache
def keys(model_type: str) -> dict[str, FieldInfo]:
    """Every key that holds a value; those of a kind of positions with the kind's name in front."""
    found: dict[str, FieldInfo] = {}
    for name, field in section_type(model_type).model_fields.items():
        if not section_models(field):
            found[name] = field
        for kind in section_models(field):
            for key, inner in kind.model_fields.items():
                found[f"{name}.{kind_name(kind)}.{key}"] = inner
    return found


def alternatives(field: FieldInfo) -> list[Any]:
    """Values of a key: all where they are few, else numbers of all sizes."""
    found: list[Any] = []
    for part in _parts(field.annotation):
        if get_origin(part) is Literal:
            found += get_args(part)
        elif part is bool:
            found += [False, True]
        elif part is type(None):
            found.append(None)
        else:
            found += NUMBERS[part]
    return found


def _parts(annotation: Any) -> list[Any]:
    return list(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else [annotation]


def changed(section: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A section with another value of a key; a key of another kind of positions brings the kind."""
    name, _, rest = key.partition(".")
    if not rest:
        return {**section, name: value}
    kind, _, inner = rest.partition(".")
    before = section.get(name, {"name": "learned"})
    return {**section, name: {**(before if before["name"] == kind else {"name": kind}), inner: value}}


def valid(section: Mapping[str, Any]) -> TransformerConfig | None:
    """The model; None where there is no such one, or none that is worth looking at."""
    if not all(least <= section[key] <= most for key, (least, most) in BOUNDS.items()):
        return None
    try:
        return model_of(section)
    except ValidationError:
        return None


@cache
def variants(model_type: str) -> tuple[Variant, ...]:
    """One for each key and value, with at most one other key changed so that there is such a model."""
    return tuple(
        variant
        for key, field in keys(model_type).items()
        for value in alternatives(field)
        if (variant := _variant(model_type, key, value)) is not None
    )


def _variant(model_type: str, key: str, value: Any) -> Variant | None:
    """None where the value needs several other changes, or is refused by other keys alone."""
    form, own, refused = form_of(model_type), _as_sorted(key), {}
    base = changed(MODELS[model_type], key, value)
    for section in (base, *(changed(base, *change) for change in _changes(model_type) if change[0] != key)):
        model = valid(section)
        if model is None:
            continue
        names = {each.setting for each in form.obstacles(model)}
        if not names:
            return Variant(model_type, key, str(value), section, taken=True)
        if names & own:
            refused.setdefault(len(names), section)
    return Variant(model_type, key, str(value), refused[min(refused)], taken=False) if refused else None


def _changes(model_type: str) -> Iterator[tuple[str, Any]]:
    yield from ((key, value) for key, field in keys(model_type).items() for value in alternatives(field))


def _as_sorted(key: str) -> set[str]:
    """Names by which a format may refuse a key: of a kind of positions the kind itself too."""
    name, _, rest = key.partition(".")
    return {name, f"{name}.{rest.partition('.')[2]}"} if rest else {name}


ALL = [variant for model_type in MODELS for variant in variants(model_type)]
