"""A run's whole configuration, every section of it; `config.py` reads and checks it."""

from functools import cached_property
from typing import Annotated

from pydantic import Field

from data_tools.data_config import DataConfig
from data_tools.samples.lengths import SampleLengths
from data_tools.samples.skipping import SkippedSamples
from megatron_patches.callbacks.evaluation_config import EvaluationConfig
from megatron_patches.callbacks.logging_config import LoggingConfig
from megatron_patches.callbacks.profiling_config import ProfileConfig
from megatron_patches.checkpoint.checkpoint_config import CheckpointConfig
from megatron_patches.configuration.model_section import ModelSection
from megatron_patches.configuration.section import ExpandsEnvironment, Section
from megatron_patches.models.interface.architecture import Architecture, Device, FlopsPerToken, Workload
from megatron_patches.models.parameter_table import parameter_table
from megatron_patches.models.pipeline_partition import Stage, plan_stages
from megatron_patches.models.registry import MODELS, architecture_of
from megatron_patches.objectives.objective_config import CausalConfig, ObjectiveConfig
from megatron_patches.optim.optimizer_config import OptimizerConfig
from megatron_patches.optim.schedule import learning_rate
from megatron_patches.optim.schedule_config import ScheduleConfig
from megatron_patches.parallel.layout import Layout
from megatron_patches.parallel.parallel_config import ParallelConfig
from megatron_patches.parameters.row import ParameterRow
from megatron_patches.run.storage_config import StorageConfig
from megatron_patches.run.timetable import Timetable
from megatron_patches.training.training_config import TrainingConfig


class RunConfig(Section):
    """One run, with every default filled in."""

    name: str = Field(description="name of the run: its file's name without .yaml")
    family: str = Field(description="folder that the run's file lies in")
    why: str = Field(min_length=1, description="what the run is for, in a sentence; never inherited")
    model: Annotated[ModelSection, MODELS] = Field(
        description="architecture and initialisation; its name, gpt where none is given, decides its keys"
    )
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
    init_from: Annotated[str | None, ExpandsEnvironment()] = Field(
        None,
        min_length=1,
        description="checkpoint whose weights the run begins with at step 0, where it has no checkpoint of its own: "
        "RUN@STEP, RUN@STEP/weights, RUN@gold, RUN@best (lowest validation loss), RUN@best:TASK.METRIC (best by "
        "an evaluation), RUN (newest whole one), a checkpoint's folder, or a transformers folder, relative to the "
        "checkout. Weights alone are taken, masters "
        "before rounded ones. Of a table of positions or token ids the rows are taken that both runs have in use; all "
        "others keep the run's own draw, padding that becomes a token too. Every other shape must be the same; a "
        "tokenizer may only add tokens",
    )
    storage: StorageConfig = Field(StorageConfig(), description="where copies of the run are kept")

    @cached_property
    def timetable(self) -> Timetable:
        """What is consumed after each step; how many steps there are."""
        return Timetable(self.training, self.lengths.counted)

    @property
    def document_ends_needed_by(self) -> list[str]:
        """The settings that must see where documents end in a sample, as people write them; none where samples say
        which of their tokens are one text.
        """
        return [] if self.data.samples.knows_texts else self.objective.reads_document_ends

    def place_after(self, step: int) -> int:
        """The place in the order of samples that is reached after a step; what is left out before it counts."""
        return SkippedSamples(self.data.skip_samples).reached(self.timetable.after(step).samples)

    @property
    def best_group(self) -> str | None:
        """The validation group by whose loss the best checkpoint is told; None for a run that is not validated."""
        return None if self.evaluation is None else self.checkpoint.best_by or self.data.group_names[0]

    @property
    def lengths(self) -> SampleLengths:
        """How long samples are: the objective says it."""
        return self.objective.lengths(self.data.sequence_length)

    @property
    def architecture(self) -> Architecture:
        """What knows the run's model."""
        return architecture_of(self.model)

    @property
    def parameters(self) -> tuple[ParameterRow, ...]:
        """The rows of all parameters of the model."""
        return parameter_table(self.model, self.lengths)

    @property
    def stages(self) -> list[Stage]:
        """What each pipeline stage holds, first to last."""
        parallel = self.parallel
        return plan_stages(self.model, self.lengths, parallel.pipeline, parallel.pipeline_partition)

    @property
    def flops(self) -> FlopsPerToken:
        """Floating-point work of a token that counts."""
        return self.architecture.flops(self.model, self.lengths, self.training.recomputation)

    def workload(self, layout: Layout, device: Device = "cuda") -> Workload:
        """What the model is given to do on a rank of a layout in one pass."""
        training = self.training
        return Workload(
            lengths=self.lengths,
            inputs=self.objective.inputs,
            training=training,
            layout=layout,
            micro_batch=training.micro_batch_size,
            recomputation=training.recomputation,
            device=device,
        )

    def learning_rate(self, step: int) -> float:
        """Planned learning rate of update number `step` (1 is the first)."""
        schedule, timetable = self.schedule, self.timetable
        position, *ends = (timetable.position(at, schedule.unit) for at in (step, *timetable.ends))
        return learning_rate(schedule, self.optimizer.learning_rate, position, ends)
