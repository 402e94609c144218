"""A `model:` section beside what a `config.json` says, key by key. Torch-free."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from megatron_patches.configuration.model_section import ModelSection
from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import shortened
from megatron_patches.models.interface.transformers_format import ModelRead
from megatron_patches.models.registry import MODELS

_OF_TRAINING = ("hidden_dropout", "attention_dropout", "embedding_dropout", "init_std", "init_residual_scaling")
"""keys that say nothing of what trained weights compute"""
_OF_ROWS = ("vocab_size", "vocab_multiple")
"""keys of which only rows depend; those that both have in use are taken (`fit_weights`)"""
_UNSET_MEANS = {"key_value_heads": "attention_heads"}
"""keys whose absence stands for another key's value"""


def section_of(read: ModelRead) -> ModelSection:
    """The section with every default filled in.

    Raises:
        Refused: the configuration says what no model of that architecture can be.
    """
    try:
        return MODELS.validate(read.section)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise Refused(f"config.json asks for a model that cannot be built: {shortened(told, 300)}") from None


def model_differences(theirs: ModelSection, ours: ModelSection) -> list[str]:
    """One phrase for each key of which the weights depend and that differs."""
    before, now = (dict(_flat("", _filled(each.model_dump()))) for each in (theirs, ours))
    return [
        f"model.{key} is {_shown(before.get(key))} in config.json and {_shown(now.get(key))} in the run"
        for key in dict.fromkeys([*before, *now])
        if key not in (*_OF_TRAINING, *_OF_ROWS)
        and before.get(key) != now.get(key)
        and not _is_of_another_kind(key, before, now)
    ]


def _is_of_another_kind(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """A key of a section whose kind differs, which is told by its name alone."""
    kind = f"{key.rpartition('.')[0]}.name"
    return key != kind and before.get(kind) != now.get(kind)


def minimal_section(model: ModelSection) -> dict[str, Any]:
    """The section as people write it: without what the defaults say anyway."""
    section = model.model_dump(exclude_defaults=True)
    return {key: value["name"] if _is_name_alone(value) else value for key, value in section.items()}


def _is_name_alone(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"name"}


def _filled(section: dict[str, Any]) -> dict[str, Any]:
    unset = {key: section.get(other) for key, other in _UNSET_MEANS.items() if section.get(key, 0) is None}
    return section | unset


def _flat(prefix: str, section: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return shortened(str(value).lower() if isinstance(value, bool) else value, 60)
