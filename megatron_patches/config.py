"""A run's whole configuration: read, checked, and written down again as it was resolved."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from data_tools.data_config import DataConfig
from data_tools.errors import TrainyardError
from data_tools.section import Section
from megatron_patches.callbacks.evaluation_config import EvaluationConfig
from megatron_patches.callbacks.logging_config import LoggingConfig
from megatron_patches.callbacks.profiling_config import ProfileConfig
from megatron_patches.checkpoint.checkpoint_config import CheckpointConfig
from megatron_patches.configuration.checks import check_run
from megatron_patches.configuration.fields import expand_environment
from megatron_patches.configuration.layers import override_layer, read_layers
from megatron_patches.configuration.merging import merge_layers
from megatron_patches.configuration.problems import NEVER_WRITTEN, Problem, explain, report, report_on_whole
from megatron_patches.configuration.yaml_text import dump_yaml, read_yaml
from megatron_patches.models.model_config import ModelConfig
from megatron_patches.objectives.objective_config import CausalConfig, ObjectiveConfig
from megatron_patches.optim.optimizer_config import OptimizerConfig
from megatron_patches.optim.schedule import learning_rate
from megatron_patches.optim.schedule_config import ScheduleConfig
from megatron_patches.parallel.parallel_config import ParallelConfig
from megatron_patches.storage_config import StorageConfig
from megatron_patches.timetable import Timetable
from megatron_patches.training_config import TrainingConfig


class RunConfig(Section):
    """One run, with every default filled in."""

    name: str = Field(description="name of the run: its file's name without .yaml")
    family: str = Field(description="folder that the run's file lies in")
    why: str = Field(min_length=1, description="what the run is for, in a sentence; never inherited")
    model: ModelConfig = Field(description="architecture and initialisation")
    data: DataConfig = Field(description="tokens that are read and how they are cut into samples")
    objective: ObjectiveConfig = Field(
        CausalConfig(name="causal"), description="what a sample asks the model to predict; its name decides its keys"
    )
    training: TrainingConfig = Field(description="length, batch, precision and seed")
    optimizer: OptimizerConfig = Field(description="update rule; its name decides which keys it has")
    schedule: ScheduleConfig = Field(description="learning rate over steps; its name decides which keys it has")
    parallel: ParallelConfig = Field(ParallelConfig(), description="layout of the ranks")
    checkpoint: CheckpointConfig = Field(description="when the run saves itself")
    logging: LoggingConfig = Field(LoggingConfig(), description="what is shown and recorded")
    evaluation: EvaluationConfig | None = Field(None, description="validation while training; unset means none")
    profile: ProfileConfig | None = Field(None, description="profile of some steps of each launch; unset means none")
    storage: StorageConfig = Field(StorageConfig(), description="where copies of the run are kept")

    @cached_property
    def timetable(self) -> Timetable:
        """What is consumed after each step; how many steps there are."""
        return Timetable(self.training, self.data.sequence_length)

    def learning_rate(self, step: int) -> float:
        """Planned learning rate of update number `step` (1 is the first)."""
        schedule, timetable = self.schedule, self.timetable
        position, end = (timetable.position(at, schedule.unit) for at in (step, timetable.steps))
        return learning_rate(schedule, self.optimizer.learning_rate, position, end)


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
