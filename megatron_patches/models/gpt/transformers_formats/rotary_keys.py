"""Rotary positions in a `config.json`: `rope_parameters` of transformers 5, and the spellings before it."""

from math import nextafter

from pydantic import JsonValue

from megatron_patches.models.gpt.transformers_formats.config_keys import ConfigReader
from megatron_patches.models.layers.model_config import ModelConfig
from megatron_patches.models.layers.position_config import RotaryPositionConfig

_KEYS = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


def written_rotary(model: ModelConfig, with_fraction: bool) -> dict[str, JsonValue]:
    """`rope_parameters` of a model with rotary positions.

    Args:
        with_fraction: the architecture turns a share of each head's features.
    """
    position = model.position_embedding
    assert isinstance(position, RotaryPositionConfig), "the format takes no other kind"
    keys: dict[str, JsonValue] = {"rope_type": "default", "rope_theta": position.theta}
    if with_fraction:
        keys["partial_rotary_factor"] = _fraction(position.rotated_features(model.head_size), model.head_size)
    return keys


def rotary_section(keys: ConfigReader) -> ConfigReader:
    """The section of rotary positions; transformers reads `rope_scaling` of old files before `rope_parameters`.

    Raises:
        Refused: the angles are scaled in a way that our rotary positions have not.
    """
    rotary = keys.section("rope_scaling" if keys.says("rope_scaling") else "rope_parameters")
    key = "rope_type" if rotary.says("rope_type") else "type"
    rotary.only(key, "default", default="default")
    rotary.refuse_others(_KEYS)
    return rotary


def turned_fraction(keys: ConfigReader, key: str, fraction: float, head_size: int) -> float:
    """Our `fraction` that turns as many features as theirs, which they round down.

    Raises:
        Refused: features that cannot be paired.
    """
    turned = int(head_size * fraction)
    if turned < 2 or turned % 2 or turned > head_size:
        keys.refuse(key, f"a share of a head's {head_size} features that is an even number of them, 2 at least")
    return fraction if abs(head_size * fraction - turned) <= 1e-3 else turned / head_size


def _fraction(turned: int, head_size: int) -> float:
    """The share of which transformers, which rounds down, computes this number of features."""
    share = turned / head_size
    return share if int(head_size * share) == turned else nextafter(share, 1)
