"""Rotary positions in a `config.json`: `rope_parameters` of transformers 5, and the spellings before it."""

from math import nextafter

from pydantic import JsonValue

from megatron_patches.models.layers.position_config import RotaryPositionConfig
from megatron_patches.models.layers.transformer_config import TransformerConfig
from megatron_patches.models.transformer.transformers_formats.config_keys import ConfigReader

_KEYS = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


def written_rotary(model: TransformerConfig) -> dict[str, JsonValue]:
    """`rope_parameters` of a model with rotary positions that turn whole heads."""
    position = model.position_embedding
    assert isinstance(position, RotaryPositionConfig), "the format takes no other kind"
    return {"rope_type": "default", "rope_theta": position.theta}


def written_partial_rotary(model: TransformerConfig) -> dict[str, JsonValue]:
    """`rope_parameters` of a model that turns a share of each head; without positions that is none of it."""
    if not isinstance(model.position_embedding, RotaryPositionConfig):
        return {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.0}
    turned = model.position_embedding.rotated_features(model.head_size)
    return {**written_rotary(model), "partial_rotary_factor": _share(turned, model.head_size)}


def rotary_section(keys: ConfigReader) -> ConfigReader:
    """The section of rotary positions; transformers reads `rope_scaling` of old files before `rope_parameters`.

    Raises:
        Refused: the angles are scaled in a way that our rotary positions have not.
    """
    rotary = keys.section("rope_scaling" if keys.has("rope_scaling") else "rope_parameters")
    key = "rope_type" if rotary.has("rope_type") else "type"
    rotary.only(key, "default", default="default")
    rotary.refuse_others(_KEYS)
    return rotary


def read_theta(keys: ConfigReader, default: float = 10000.0) -> float:
    """The base of the angles of a model that turns whole heads.

    Raises:
        Refused: they are scaled, or a share of each head is turned.
    """
    rotary = rotary_section(keys)
    # transformers does not read it for these, and other programs do
    for place in (keys, rotary):
        place.only("partial_rotary_factor", 1.0, default=1.0)
    return rotary.number("rope_theta", default=keys.number("rope_theta", default=default))


def turned_share(head_size: int, factor: float) -> float | None:
    """Our `fraction` that turns as many features as their `partial_rotary_factor`, which rounds them down.

    None where those cannot be paired.
    """
    if not 0 <= factor <= 1:
        return None
    turned = int(head_size * factor)
    if turned % 2:
        return None
    return factor if abs(head_size * factor - turned) <= 1e-3 else turned / head_size


def _share(turned: int, head_size: int) -> float:
    """The share of which transformers, which rounds down, computes this number of features."""
    share = turned / head_size
    return share if int(head_size * share) == turned else nextafter(share, 1)
