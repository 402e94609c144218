"""Reads a run's configuration, checks it as a whole, and writes it down again as it was resolved."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from megatron_patches.artefacts.run_folder import rehearsal_of
from megatron_patches.configuration.fields import expand_environment
from megatron_patches.configuration.layers import override_layer, read_layers
from megatron_patches.configuration.merging import merge_layers
from megatron_patches.configuration.problems import NEVER_WRITTEN, Problem, explain, of_key, of_whole
from megatron_patches.configuration.yaml_text import dump_yaml, read_yaml
from megatron_patches.errors import TrainyardError, listed, refuse
from megatron_patches.foreign.names import check_name
from megatron_patches.foreign.printable import printable
from megatron_patches.run.checks import check_run
from megatron_patches.run.config import RunConfig


@dataclass(frozen=True)
class ReadRun:
    """A run whose sections are each in order, and what is wrong all the same."""

    config: RunConfig
    problems: tuple[Problem, ...] = ()
    """of what lies between keys, and of variables that are not set; each text headed by where it comes from"""

    def texts(self) -> list[str]:
        """The problems as people read them."""
        return [problem.text for problem in self.problems]

    def checked(self) -> RunConfig:
        """The configuration; raises TrainyardError with every problem where there are any."""
        refuse(self.texts())
        return self.config


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run of a YAML file, with its bases and the overrides applied, checked as a whole.

    `overrides` are arguments of a command line: `--training.steps 8` or `--training.steps=8`, later ones win.

    Raises:
        TrainyardError: every problem of the file, its bases and the overrides, one a line, each with its remedy.
    """
    return read_run(path, overrides).checked()


def read_run(path: Path, overrides: Sequence[str] = ()) -> ReadRun:
    """As `load_run`, for callers that look for more problems than the configuration's before they tell them.

    Raises:
        TrainyardError: a section is not in order, so that there is no configuration; every problem is told.
    """
    check_name(path.stem, f"a run, and {printable(path)} would have it from its file")
    merged = merge_layers([*read_layers(path), override_layer(overrides, RunConfig)], RunConfig)
    settings, unset = expand_environment(RunConfig, merged.settings, os.environ)
    problems = [Problem(key, complaint) for key, complaint in unset.items()]
    if run := rehearsal_of(path.stem):
        problems.append(Problem("", f"a run cannot be called {path.stem}, as a rehearsal of {run} is; rename the file"))
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
    return from_settings(read_yaml(path), str(path))


def from_settings(settings: Mapping[str, Any], origin: str) -> RunConfig:
    """The run of settings that are complete, as `model_dump` gives them; `origin` says in an error whose they are.

    Raises:
        TrainyardError: they are not in order; every problem is told.
    """
    return _validate(settings, [], {"": origin}, origin).checked()


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration, every key written out; `load_resolved` gives the same configuration back."""
    return dump_yaml(config.model_dump())


def _validate(settings: Mapping[str, Any], problems: list[Problem], origins: Mapping[str, str], whole: str) -> ReadRun:
    """`origins` are those of keys; what no key alone is to blame for is a problem of the `whole`."""
    try:
        config = RunConfig.model_validate(settings)
    except ValidationError as error:
        found = [of_key(problem, origins).text for problem in [*problems, *explain(error, RunConfig)]]
        raise TrainyardError(listed(found)) from None
    between_keys = [of_whole(problem, origins, whole) for problem in check_run(config)]
    return ReadRun(config, (*(of_key(problem, origins) for problem in problems), *between_keys))
