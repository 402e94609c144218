"""Where a run's settings come from: its bases, its own file, the overrides, each laid over the one before."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.errors import TrainyardError
from megatron_patches.configuration.yaml_text import parse_yaml, read_yaml

NEVER_INHERITED = "why"


@dataclass(frozen=True)
class Layer:
    """Settings of one origin."""

    origin: str
    """what a message calls it: a file, or the overrides"""
    settings: Mapping[str, Any]


def read_layers(path: Path) -> list[Layer]:
    """The file and the chain of its `base:` files, the farthest first.

    Raises:
        TrainyardError: a file is missing or damaged, `base:` is no path, or the chain comes back to itself.
    """
    if not path.is_file():
        raise TrainyardError(f"{path}: no such file; `tools/runs list` shows the runs there are")
    chain: list[Path] = []
    layers: list[Layer] = []
    following: Path | None = path
    while following is not None:
        if following.resolve() in [seen.resolve() for seen in chain]:
            circle = " -> ".join(str(file) for file in [*chain, following])
            raise TrainyardError(f"{chain[-1]}: base: comes back to where it started: {circle}; remove one base:")
        if chain and not following.is_file():
            raise TrainyardError(f"{chain[-1]}: base: there is no file {following}; paths are relative to the file")
        settings = read_yaml(following)
        if chain:
            settings.pop(NEVER_INHERITED, None)
        chain.append(following)
        following = _base_path(following, settings.pop("base", None))
        layers.insert(0, Layer(str(chain[-1]), settings))
    return layers


def base_of(path: Path) -> Path | None:
    """The file that a run's `base:` names, if it names one.

    Raises:
        TrainyardError: the file is missing or damaged, or `base:` is no path.
    """
    return _base_path(path, read_yaml(path).get("base"))


def _base_path(path: Path, base: object) -> Path | None:
    if base is None:
        return None
    if not isinstance(base, str) or not base:
        raise TrainyardError(f"{path}: base: {base!r} is not the path of a run's file")
    return Path(os.path.normpath(path.parent / base))


def override_layer(words: Sequence[str]) -> Layer:
    """The layer of `--section.key value` or `--section.key=value` words; values are YAML, later words win.

    Raises:
        TrainyardError: a word is not an override, lacks its value, or its value is not YAML.
    """
    settings: dict[str, Any] = {}
    remaining = iter(words)
    for word in remaining:
        if not word.startswith("--") or len(word) == 2:
            raise TrainyardError(f"{word!r} is not an override; they look like --training.micro_batch_size 8")
        key, equals, text = word[2:].partition("=")
        if not equals:
            text = next(remaining, "--")
            if text.startswith("--"):
                raise TrainyardError(f"--{key} has no value; write --{key} VALUE or --{key}=VALUE")
        _place(settings, key, parse_yaml(text, f"--{key}"))
    return Layer("the command line", settings)


def _place(settings: dict[str, Any], key: str, value: object) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = settings.setdefault(section, {})
        if not isinstance(inner, dict):
            raise TrainyardError(f"--{key} reaches into {section}, which another override set to {inner!r}")
        settings = inner
    settings[last] = value


def merge_layers(layers: Sequence[Layer]) -> dict[str, Any]:
    """The settings of all layers, a later layer's laid over an earlier's key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer.settings)
    return merged


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Sections are merged, except one that takes another `name`: what AdamW was told means nothing to SGD."""
    merged = dict(below)
    for key, value in above.items():
        old = below.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and _same_name(old, value):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def _same_name(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    return "name" not in above or above["name"] == below.get("name")


def origins_of(layers: Sequence[Layer]) -> dict[str, str]:
    """The origin of each dotted key, of sections too."""
    origins: dict[str, str] = {}
    for layer in layers:
        origins.update(dict.fromkeys(_dotted_keys(layer.settings), layer.origin))
    return origins


def _dotted_keys(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _dotted_keys(value, f"{prefix}{key}.")
