"""Reads a run's configuration, checks it as a whole, and writes it down again as it was resolved."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_tools.errors import TrainyardError
from megatron_patches.configuration.checks import check_run
from megatron_patches.configuration.fields import expand_environment
from megatron_patches.configuration.layers import override_layer, read_layers
from megatron_patches.configuration.merging import merge_layers
from megatron_patches.configuration.problems import NEVER_WRITTEN, Problem, explain, report, report_on_whole
from megatron_patches.configuration.yaml_text import dump_yaml, read_yaml
from megatron_patches.run_config import RunConfig


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run of a YAML file, with its bases and the overrides applied, checked as a whole.

    `overrides` are words of a command line: `--training.steps 8` or `--training.steps=8`, later ones win.

    Raises:
        TrainyardError: every problem of the file, its bases and the overrides, one a line, each with its remedy.
    """
    merged = merge_layers([*read_layers(path), override_layer(overrides, RunConfig)], RunConfig)
    settings, unset = expand_environment(RunConfig, merged.settings, os.environ)
    problems = [Problem(key, complaint) for key, complaint in unset.items()]
    identity = {"name": path.stem, "family": path.resolve().parent.name}
    for key in sorted(NEVER_WRITTEN & settings.keys()):
        problems.append(Problem(key, f"{key} follows from the file's place ({identity[key]}); remove the key"))
    whole = f"{path} with its overrides" if overrides else str(path)
    return _validate({**settings, **identity}, problems, {**merged.origins, "": str(path)}, whole)


def load_resolved(path: Path) -> RunConfig:
    """The run that `to_yaml` wrote, for example a launch's `config.yaml`; nothing is inherited or expanded.

    Raises:
        TrainyardError: the file is missing, damaged, or written by a version with other keys.
    """
    settings = read_yaml(path)
    return _validate(settings, [], {"": str(path)}, str(path))


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration, every key written out; `load_resolved` gives the same configuration back."""
    return dump_yaml(config.model_dump())


def _validate(
    settings: Mapping[str, Any], problems: list[Problem], origins: Mapping[str, str], whole: str
) -> RunConfig:
    """`origins` are those of keys; what no key alone is to blame for is a problem of the `whole`."""
    try:
        config = RunConfig.model_validate(settings)
    except ValidationError as error:
        problems = [*problems, *explain(error, RunConfig)]
        raise TrainyardError(report(problems, origins)) from None
    between_keys = check_run(config)
    if problems or between_keys:
        complaints = [report(problems, origins)] if problems else []
        raise TrainyardError("\n".join([*complaints, *report_on_whole(between_keys, origins, whole)]))
    return config
