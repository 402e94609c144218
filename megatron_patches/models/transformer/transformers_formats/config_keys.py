"""Keys of a `config.json`, read strictly: a value that is not understood is refused with its key."""

from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from pydantic import JsonValue

from megatron_patches.errors import Refused
from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.models.layers.transformer_config import TransformerConfig

_MEANS = {
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new",
    "gelu_python": "gelu",
    "swish": "silu",
}
"""names of transformers for functions that have another name too"""
_OTHER_FUNCTIONS: Mapping[str, JsonValue] = {
    "is_encoder_decoder": False,
    "per_layer_config": None,  # layers that differ from each other
    "layer_types": None,
    "sliding_window": None,  # generation forgets what lies before it
    "attention_chunk_size": None,
    "kv_sharing_modes": None,
    "quantization_config": None,
}
"""keys that transformers reads for every architecture, whether its class declares them or not, and the value with which
a model computes what its architecture says"""


class ConfigReader:
    """The keys of one `config.json`, or of a section of it. Of what is absent, null means the same.

    Args:
        model_type: for messages.
        section: what precedes the keys in messages: `rope_parameters.`.
    """

    def __init__(self, model_type: str, config: Mapping[str, JsonValue], section: str = "") -> None:
        self._model_type = model_type
        self._config = config
        self._section = section

    def refuse_other_functions(self, causal: bool = True) -> None:
        """Refuses what turns any architecture into another one.

        Args:
            causal: what `is_causal` may say, whether tokens see those before them alone.
        """
        self.only("is_causal", causal, default=causal)
        for key, value in _OTHER_FUNCTIONS.items():
            self.only(key, value, default=value)

    def whole(self, key: str, *also: str, default: int) -> int:
        """A whole number above 0.

        Args:
            also: further names that the key goes by.
        """
        said = [name for name in (key, *also) if self._config.get(name) is not None]
        for name in said:
            value = self._config[name]
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise self._refused(name, "a whole number above 0")
            if value != self._config[said[0]]:
                raise self._refused(name, f"what {said[0]} says, {self._config[said[0]]}")
        number: Any = self._config[said[0]] if said else default
        return int(number)

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

    def only(self, key: str, value: JsonValue, default: JsonValue) -> None:
        """Refuses another value than this one."""
        found = self._config.get(key)
        if (default if found is None else found) != value:
            raise self._refused(key, _as_json(value))

    def activation(self, key: str, names: Mapping[str, str], default: str) -> str:
        """Our name of an activation.

        Args:
            names: ours and theirs.
        """
        value = self._config.get(key) or default
        wanted = _MEANS.get(value, value) if isinstance(value, str) else value
        for ours, theirs in names.items():
            if _MEANS.get(theirs, theirs) == wanted:
                return ours
        raise self._refused(key, " or ".join(names.values()))

    def section(self, key: str) -> "ConfigReader":
        """The keys of a section; of none where it is absent."""
        value = self._config.get(key)
        if value is not None and not isinstance(value, dict):
            raise self._refused(key, "a section with keys")
        return ConfigReader(self._model_type, value or {}, f"{self._section}{key}.")

    def has(self, key: str) -> bool:
        """Whether a key is there, and is no empty section."""
        return self._config.get(key) not in (None, {})

    def refuse(self, key: str, takes: str) -> NoReturn:
        """Refuse a key's value, in words of what can be imported."""
        raise self._refused(key, takes)

    def refuse_others(self, known: Collection[str]) -> None:
        """Refuses keys of a section that are not among these."""
        for key in self._config:
            if key not in known:
                self.only(key, None, default=None)

    def _refused(self, key: str, takes: str) -> Refused:
        found = shortened(_as_json(self._config.get(key)), 60)
        return Refused(
            f"config.json of {self._model_type}: {self._section}{printable(key)} is {found}; what can be imported has "
            f"{takes}"
        )


def written_activation(names: Mapping[str, str], model: TransformerConfig) -> str:
    """Their name of a model's activation."""
    return names[model.activation]


def _as_json(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
