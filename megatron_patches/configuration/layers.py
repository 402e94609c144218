"""Where a run's settings come from: its bases, its own file, the overrides."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from megatron_patches.configuration.megatron_flags import foreign_flags
from megatron_patches.configuration.merging import SettingsLayer, merge_parts
from megatron_patches.configuration.yaml_text import parse_yaml, read_yaml
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened

NEVER_INHERITED = "why"
_DEEPEST_KEY = 16


def read_layers(path: Path) -> list[SettingsLayer]:
    """The file and the chain of its `base:` files, the farthest first.

    Raises:
        TrainyardError: a file is missing or damaged, `base:` is no path, or the chain comes back to itself.
    """
    if not path.is_file():
        raise TrainyardError(f"{path}: no such file; `tools/runs list` shows the runs there are")
    chain: list[Path] = []
    layers: list[SettingsLayer] = []
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
        layers.insert(0, SettingsLayer(str(chain[-1]), settings))
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


def override_layer(arguments: Sequence[str], model: type[BaseModel]) -> SettingsLayer:
    """The layer of `--section.key value` or `--section.key=value` arguments; values are YAML, later ones win.

    Raises:
        TrainyardError: a word is not an override, or Megatron's name of one; it lacks its value, or that is not YAML.
    """
    if foreign := list(foreign_flags(arguments, model.model_fields)):
        raise TrainyardError("; ".join(foreign))
    settings: dict[str, Any] = {}
    remaining = iter(arguments)
    for word in remaining:
        if not word.startswith("--") or len(word) == 2:
            raise TrainyardError(f"{word!r} is not an override; they look like --training.micro_batch_size 8")
        key, equals, text = word[2:].partition("=")
        if not equals:
            text = next(remaining, "--")
            if text.startswith("--"):
                raise TrainyardError(f"--{key} has no value; write --{key} VALUE or --{key}=VALUE")
        part = _nested(settings, key, parse_yaml(text, f"--{key}"))
        settings = merge_parts([settings, part], model)
    return SettingsLayer("the command line", settings)


def _nested(settings: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    """The settings that an override stands for; `settings` are those of the overrides before it."""
    first, *rest = key.split(".")
    if len(rest) >= _DEEPEST_KEY:
        raise TrainyardError(f"--{shortened(key, 60)} names no setting: none lies {len(rest)} sections deep")
    part: object = value
    inner: object = settings
    for section in [first, *rest][:-1]:
        inner = inner.get(section, {}) if isinstance(inner, Mapping) else inner
        if not isinstance(inner, Mapping):
            raise TrainyardError(f"--{key} reaches into {section}, which another override set to {inner!r}")
    for word in reversed(rest):
        part = {word: part}
    return {first: part}
