"""What a format takes for each key of a `model:` section: every key is sorted, so that none is forgotten."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from megatron_patches.models.interface.transformers_format import Obstacle
from megatron_patches.models.layers.transformer_config import TransformerConfig


@dataclass(frozen=True)
class Taken:
    """What a format takes for a key."""

    fits: Callable[[TransformerConfig], bool]
    words: Callable[[TransformerConfig], str]
    """what it takes, where the model's own does not fit"""


ANY = Taken(lambda model: True, lambda model: "any value")
"""the format has the same choice, or the key says nothing of what trained weights do"""


def only(setting: str, *values: Any) -> Taken:
    """One of these values of a key."""
    return Taken(
        lambda model: value_of(model, setting) in values, lambda model: " or ".join(_as_yaml(each) for each in values)
    )


COMMON: Mapping[str, Taken] = {
    "layers": ANY,
    "hidden_size": ANY,
    "attention_heads": ANY,
    "vocab_size": ANY,
    "vocab_multiple": ANY,
    "norm_placement": only("norm_placement", "pre"),
    "norm_epsilon": ANY,
    "query_key_norm": only("query_key_norm", False),
    "attention_bias": ANY,
    "mlp_bias": ANY,
    "tied_head": ANY,
    "logit_soft_cap": only("logit_soft_cap", None),
    "hidden_dropout": ANY,
    "attention_dropout": ANY,
    "embedding_dropout": ANY,
    "init_std": ANY,
    "init_residual_scaling": ANY,
}
"""keys for which all formats take the same"""


def obstacles(model: TransformerConfig, taken: Mapping[str, Taken]) -> list[Obstacle]:
    """Keys for which the format has no such choice.

    Raises KeyError for a key that it does not sort: it would be exported as if it did nothing.
    """
    return [
        Obstacle(setting, _as_yaml(value_of(model, setting)), taken[setting].words(model))
        for setting in _settings(model, taken)
        if not taken[setting].fits(model)
    ]


def _settings(model: TransformerConfig, taken: Mapping[str, Taken]) -> Iterator[str]:
    """The keys of a model's section; those of its kind of positions too, where the format takes the kind."""
    for name in type(model).model_fields:
        yield name
        kind = getattr(model, name)
        if isinstance(kind, BaseModel) and taken[name].fits(model):
            yield from (f"{name}.{key}" for key in type(kind).model_fields if key != "name")


def value_of(model: TransformerConfig, setting: str) -> Any:
    """The value of a dotted key; of `position_embedding`, the kind's name."""
    found: Any = model
    for part in setting.split("."):
        found = getattr(found, part)
    return getattr(found, "name", found)


def _as_yaml(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
