"""One origin's settings laid over another's, as the sections' models say what is a section and of which kind."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from megatron_patches.configuration.fields import default_kind, kind_name, section_models
from megatron_patches.configuration.section import kind_by_name


@dataclass(frozen=True)
class SettingsLayer:
    """Settings of one origin."""

    origin: str
    """what a message calls it: a file, or the overrides"""
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Merged:
    """Settings of several origins."""

    settings: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)
    """of each dotted key that is there, sections too, the last origin that set it"""


def merge_layers(layers: Sequence[SettingsLayer], model: type[BaseModel]) -> Merged:
    """The settings of all layers, a later layer's laid over an earlier's key by key.

    A section that takes another kind starts afresh: what AdamW was told means nothing to SGD. A value that is no
    section, such as a mapping of patterns, replaces the one below it: the order of patterns counts, and laid over one
    another an inherited one could neither move nor go. null leads back to the default where there is one.
    """
    merged = Merged({})
    for layer in layers:
        merging = _Merging(merged.origins, layer.origin, whole=True)
        merged = Merged(merging.over(merged.settings, layer.settings, model.model_fields), merged.origins)
    return merged


def merge_parts(parts: Iterable[Mapping[str, Any]], model: type[BaseModel]) -> dict[str, Any]:
    """One layer of several parts, later ones winning; a kind and its keys may come in any order. null stays."""
    merged: dict[str, Any] = {}
    for part in parts:
        merged = _Merging({}, "", whole=False).over(merged, part, model.model_fields)
    return merged


@dataclass(frozen=True)
class _Merging:
    """Lays the settings of one origin over those of others."""

    origins: dict[str, str]
    origin: str
    whole: bool
    """whether what lies below is all there is, or a part of a layer: a section without a name, null"""

    def over(
        self, below: Mapping[str, Any], above: Mapping[str, Any], fields: Mapping[str, FieldInfo], prefix: str = ""
    ) -> dict[str, Any]:
        """The two together; a kind's name alone is written out as its section."""
        merged = dict(below)
        for key, given in above.items():
            info = fields.get(key)
            kinds = section_models(info) if info else []
            value = kind_by_name(given) if len(kinds) > 1 else given
            if info is not None and kinds and isinstance(value, Mapping):
                merged[key] = self._section(merged.get(key), value, info, prefix + key)
            else:
                self._forget(prefix + key)
                merged[key] = value
                if value is None and self.whole and info is not None and not info.is_required():
                    del merged[key]
            self.origins[prefix + key] = self.origin
        return merged

    def _section(self, below: object, above: Mapping[str, Any], info: FieldInfo, key: str) -> dict[str, Any]:
        old = below if isinstance(below, Mapping) else {}
        kind = self._kind(old, info)
        if "name" in above and above["name"] != kind and (old.get("name") or self.whole):
            self._forget(key)
            old = {}
        return self.over(old, above, _fields(section_models(info), above.get("name", kind)), f"{key}.")

    def _kind(self, section: Mapping[str, Any], info: FieldInfo) -> Any:
        """The name of a section; of a whole one without a name, that of the default."""
        return section.get("name", default_kind(info) if self.whole else None)

    def _forget(self, key: str) -> None:
        """Origins of what lay in a section that is replaced."""
        for each in [each for each in self.origins if each.startswith(f"{key}.")]:
            del self.origins[each]


def _fields(kinds: Sequence[type[BaseModel]], name: object) -> dict[str, FieldInfo]:
    """The keys of a section of this kind; where its kind is not known, those of all kinds."""
    named = [kind for kind in kinds if len(kinds) == 1 or kind_name(kind) == name]
    return {key: info for kind in reversed(named or kinds) for key, info in kind.model_fields.items()}
