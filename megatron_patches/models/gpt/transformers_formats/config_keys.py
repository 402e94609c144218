"""Keys of a `config.json`, read strictly: a value that is not understood is refused with its key."""

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import shortened
from megatron_patches.models.layers.model_config import ModelConfig

_MEANS = {"gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new", "swish": "silu"}
"""names of transformers for functions that have another name too"""


class ConfigReader:
    """The keys of one `config.json`.

    Args:
        model_type: for messages.
    """

    def __init__(self, model_type: str, config: Mapping[str, JsonValue]) -> None:
        self._model_type = model_type
        self._config = config

    def whole(self, key: str, default: int) -> int:
        """A whole number above 0; null and an absent key mean the default."""
        value = self._config.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._refused(key, "a whole number above 0")
        return value

    def number(self, key: str, default: float) -> float:
        """A number."""
        value = self._config.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._refused(key, "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self._config.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._refused(key, "true or false")
        return value

    def only(self, key: str, value: Any, default: Any) -> None:
        """Refuses another value than this one."""
        found = self._config.get(key, default)
        if found != value:
            raise self._refused(key, str(value).lower() if isinstance(value, bool) else str(value))

    def activation(self, key: str, names: Mapping[str, str], default: str) -> str:
        """Our name of an activation.

        Args:
            names: ours and theirs.
        """
        value = self._config.get(key, default)
        wanted = _MEANS.get(value, value) if isinstance(value, str) else value
        for ours, theirs in names.items():
            if _MEANS.get(theirs, theirs) == wanted:
                return ours
        raise self._refused(key, " or ".join(names.values()))

    def _refused(self, key: str, takes: str) -> Refused:
        found = shortened(self._config.get(key), 60)
        return Refused(f"config.json of {self._model_type}: {key} is {found}; what can be imported has {takes}")


def written_activation(names: Mapping[str, str], model: ModelConfig) -> str:
    """Their name of a model's activation."""
    return names[model.activation]
