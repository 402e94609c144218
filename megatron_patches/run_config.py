"""A run's whole configuration, every section of it; `config.py` reads and checks it."""

from functools import cached_property

from pydantic import Field

from data_tools.data_config import DataConfig
from data_tools.section import Section
from megatron_patches.callbacks.evaluation_config import EvaluationConfig
from megatron_patches.callbacks.logging_config import LoggingConfig
from megatron_patches.callbacks.profiling_config import ProfileConfig
from megatron_patches.checkpoint.checkpoint_config import CheckpointConfig
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
