"""What is known of a launch before it starts: each fact found out once, when it is first asked for. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec

from data_tools.run_data import RunData
from megatron_patches.artefacts.marks import is_damaged
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkout import CHECKOUT
from megatron_patches.checkpoint.resume_check import SavedStep, newest_whole, saved_steps
from megatron_patches.checkpoint.size import free_space
from megatron_patches.errors import TrainyardError
from megatron_patches.hardware.accelerator import gpu_models, has_gpu
from megatron_patches.launch.init_from.resolution import StartingPoint, find_starting_point
from megatron_patches.launch.preparation import PreparationProgress
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import lay_out
from megatron_patches.run.reading import ReadRun
from megatron_patches.run.run_directory import run_directory, text_preparation
from megatron_patches.run.summary import training_samples

OPTIONAL_PACKAGES = ("wandb",)


def installed_packages() -> frozenset[str]:
    """Which of the packages that only some runs need are installed."""
    return frozenset(name for name in OPTIONAL_PACKAGES if find_spec(name) is not None)


@dataclass(frozen=True)
class LaunchTarget:
    """Where a run is to start. Of a job's machines one is here: what it lacks, all lack."""

    nodes: int | None
    """SLURM nodes; None is this machine, without SLURM"""
    gpus_per_node: int | None = None
    """what SLURM gave the job on each node, if it said so"""
    gpu: bool = field(default_factory=has_gpu)
    gpu_models: Sequence[str] = field(default_factory=gpu_models)
    packages: frozenset[str] = field(default_factory=installed_packages)


@dataclass(frozen=True)
class LaunchFacts:
    """Everything that the checks of a launch go by.

    A fact that cannot be had raises a TrainyardError that says why, each time it is asked for: so a check passes on
    what it cannot do without, and `launch_problems` tells it once.
    """

    run: ReadRun
    machines: LaunchTarget

    @property
    def config(self) -> RunConfig:
        """The configuration, whose keys may contradict each other: a check calls `require` for those it goes by."""
        return self.run.config

    def require(self, *keys: str) -> None:
        """Raise the configuration's own problem of any of these keys or sections, if it has one."""
        for problem in self.run.problems:
            if any(f"{problem.key}.".startswith(f"{key}.") for key in keys):
                raise TrainyardError(problem.text)

    @property
    def nodes(self) -> int:
        """LaunchTarget that take part."""
        return self.machines.nodes or 1

    @property
    def processes_per_node(self) -> int:
        """How many processes each of them starts; raises TrainyardError where that is not known."""
        return processes_per_node(self.config, self.machines)

    @property
    def layout(self) -> Layout:
        """How the model is laid out on them; raises TrainyardError where they do not hold whole models."""
        return lay_out(self.config, self.nodes * self.processes_per_node)

    @property
    def data(self) -> RunData:
        """The opened data; raises TrainyardError where it is missing, damaged, or another than it is said to be."""
        if isinstance(self._opened_data, TrainyardError):
            raise self._opened_data
        return self._opened_data

    @cached_property
    def _opened_data(self) -> RunData | TrainyardError:
        try:
            self.require(
                "data.path", "data.text", "data.sources", "data.changes", "data.validation", "data.samples",
                "data.tokenizer", "evaluation",
            )  # fmt: skip
            if self.config.data.changes:
                self.require("training", "data.skip_samples")
            return RunData(
                self.config.data, CHECKOUT, self.config.lengths, self.config.place_after, PreparationProgress(),
                text_preparation(self.config),
            )  # fmt: skip
        except TrainyardError as error:
            return error

    @property
    def training_samples(self) -> int:
        """Samples of the whole run; 0 where no step fits into its length, which the configuration says."""
        return training_samples(self.config)

    @property
    def validation_samples(self) -> int:
        """Samples of one validation; 0 for a run without one."""
        return self.config.evaluation.samples if self.config.evaluation else 0

    @property
    def directory(self) -> RunFolder:
        """Where the run keeps what it makes."""
        return run_directory(self.config)

    @cached_property
    def saved(self) -> list[SavedStep]:
        """The run's checkpoints, the newest first."""
        return saved_steps(self.directory.checkpoints, self.config.data.allow_invalid)

    @property
    def taken(self) -> SavedStep | None:
        """The checkpoint that the launch will take, as far as names and sizes tell."""
        return newest_whole(self.saved)

    @property
    def consumed_samples(self) -> int:
        """What the run has behind it."""
        return self.saved[0].samples if self.saved else 0

    @property
    def resumes(self) -> bool:
        """Whether a checkpoint of the run can be gone on from, as far as names, sizes and marks tell."""
        return any(not each.problems and not is_damaged(each.folder) for each in self.saved)

    @property
    def starting_point(self) -> StartingPoint | None:
        """What the run begins from by `init_from`; None where it goes on from its own checkpoint, or draws its weights.

        Raises TrainyardError where it is missing, damaged, or does not fit the run.
        """
        if self.config.init_from is None or self.resumes:
            return None
        if isinstance(self._starting_point, TrainyardError):
            raise self._starting_point
        return self._starting_point

    @cached_property
    def _starting_point(self) -> StartingPoint | TrainyardError:
        assert self.config.init_from is not None
        try:
            self.require("model", "objective", "data")
            return find_starting_point(self.config.init_from, self.config, self.data)
        except TrainyardError as error:
            return error

    @cached_property
    def free_space(self) -> int:
        """Bytes that are free where checkpoints go."""
        return free_space(self.directory.checkpoints)


def processes_per_node(config: RunConfig, machines: LaunchTarget) -> int:
    """One process for each GPU under SLURM; without SLURM one model's worth, unless the run says otherwise.

    Raises:
        TrainyardError: a SLURM job without GPUs whose run does not say how many processes a node gets.
    """
    parallel = config.parallel
    if machines.nodes is None:
        return parallel.local_processes or parallel.tensor * parallel.pipeline
    per_node = machines.gpus_per_node or parallel.processes_per_node
    if per_node is None:
        raise TrainyardError(
            "processes per node are not known: SLURM gave this job no GPUs and parallel.processes_per_node is not set; "
            "ask for GPUs (export SBATCH_GRES=gpu:N before sbatch), or add --parallel.processes_per_node N"
        )
    return per_node
