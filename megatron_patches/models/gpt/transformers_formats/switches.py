"""What a format takes for each key of a GPT's `model:` section: every key is sorted, so that none is forgotten."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from megatron_patches.models.interface.transformers_format import Obstacle
from megatron_patches.models.layers.model_config import ModelConfig


@dataclass(frozen=True)
class Taken:
    """What a format takes for a key."""

    fits: Callable[[ModelConfig], bool]
    words: Callable[[ModelConfig], str]
    """what it takes, where the model's own does not fit"""


ANY = Taken(lambda model: True, lambda model: "any value")
"""the format has the same choice, or the key says nothing of what trained weights do"""

AS_MANY_AS_HEADS = Taken(
    lambda model: model.groups == model.attention_heads, lambda model: f"attention_heads ({model.attention_heads})"
)
"""of `key_value_heads`: each head has keys and values of its own"""


def only(setting: str, *values: Any) -> Taken:
    """One of these values of a key."""
    words = " or ".join(_as_yaml(value) for value in values)
    return Taken(lambda model: value_of(model, setting) in values, lambda model: words)


def only_kinds(*names: str) -> Taken:
    """These kinds of positions, with any keys."""
    return Taken(lambda model: model.position_embedding.name in names, lambda model: " or ".join(names))


def obstacles(model: ModelConfig, taken: Mapping[str, Taken]) -> list[Obstacle]:
    """Keys for which the format has no such choice."""
    return [
        Obstacle(setting, _as_yaml(value_of(model, setting)), each.words(model))
        for setting, each in taken.items()
        if not each.fits(model)
    ]


def value_of(model: ModelConfig, setting: str) -> Any:
    """The value of a dotted key; of `position_embedding`, the kind's name; None of a key that the kind has not."""
    found: Any = model
    for part in setting.split("."):
        found = getattr(found, part, None)
    return getattr(found, "name", found)


def _as_yaml(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
