"""Layouts that a run could have on so many GPUs. Torch-free."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from megatron_patches.configuration.divisibility import either
from megatron_patches.errors import TrainyardError
from megatron_patches.estimate.communication import blocks_by_stack
from megatron_patches.models.interface.architecture import Recomputation
from megatron_patches.parallel.layout import Layout
from megatron_patches.parameters.row import cuts_of
from megatron_patches.run.config import RunConfig


@dataclass(frozen=True, order=True)
class Candidate:
    """The keys of a run that may change without changing what it learns."""

    tensor: int
    pipeline: int
    sequence_parallel: bool
    zero_stage: int
    micro_batch_size: int
    recomputation: Recomputation

    @staticmethod
    def of(config: RunConfig) -> "Candidate":
        """The one that a run is now."""
        parallel, training = config.parallel, config.training
        return Candidate(
            parallel.tensor, parallel.pipeline, parallel.sequence_parallel, parallel.zero_stage,
            training.micro_batch_size, training.recomputation,
        )  # fmt: skip

    def keys(self) -> dict[str, Any]:
        """The keys of a run's YAML and their values."""
        sections = {"micro_batch_size": "training", "recomputation": "training"}
        return {f"{sections.get(key, 'parallel')}.{key}": value for key, value in asdict(self).items()}

    def overrides(self, config: RunConfig) -> list[str]:
        """The same as arguments of a command line for a run, whose uneven stages a single one cannot have."""
        arguments = [f"--{key}={str(value).lower()}" for key, value in self.keys().items()]
        uneven = config.parallel.pipeline_partition != "transformer"
        return [*arguments, "--parallel.pipeline_partition=transformer"] if uneven and self.pipeline == 1 else arguments

    def changes(self, other: "Candidate") -> dict[str, Any]:
        """Keys in which this one differs from another, with this one's values."""
        before = other.keys()
        return {key: value for key, value in self.keys().items() if value != before[key]}

    def applied_to(self, config: RunConfig) -> RunConfig:
        """The run with these keys; checked only in what a candidate can be wrong in, by `candidates`."""
        parallel: dict[str, Any] = {"tensor": self.tensor, "pipeline": self.pipeline, "zero_stage": self.zero_stage}
        parallel |= {"sequence_parallel": self.sequence_parallel}
        if self.pipeline == 1:
            parallel |= {"pipeline_partition": "transformer"}
        training = {"micro_batch_size": self.micro_batch_size, "recomputation": self.recomputation}
        return config.model_copy(
            update={
                "parallel": config.parallel.model_copy(update=parallel),
                "training": config.training.model_copy(update=training),
            }
        )

    def layout(self, processes: int) -> Layout:
        """Its ranks."""
        data = processes // (self.tensor * self.pipeline)
        return Layout(self.tensor, self.pipeline, data, self.sequence_parallel)

    def describe(self) -> str:
        """For example `TP 2 + SP, PP 1, ZeRO 1, micro-batch 4, full recomputation`."""
        again = f", {self.recomputation} recomputation" if self.recomputation != "none" else ""
        sequence = " + SP" if self.sequence_parallel else ""
        micro_batch = f"micro-batch {self.micro_batch_size}"
        return f"TP {self.tensor}{sequence}, PP {self.pipeline}, ZeRO {self.zero_stage}, {micro_batch}{again}"


def candidates(config: RunConfig, processes: int, gpus_per_node: int) -> list[Candidate]:
    """Every layout that the run can start with on so many GPUs; tensor parallelism stays inside a node.

    Raises:
        TrainyardError: there is none, for what divides nothing; the nearest numbers of GPUs are named.
    """
    found = [
        Candidate(tensor, pipeline, sequence, zero, micro_batch, kind)
        for tensor, pipeline in _model_sizes(config, processes, gpus_per_node)
        for sequence in ((False, True) if tensor > 1 and _places_divide(config, tensor) else (False,))
        for micro_batch in _micro_batches(config, processes // (tensor * pipeline))
        for zero, kind in product(_zero_stages(config, pipeline, processes // (tensor * pipeline)), _kinds())
    ]
    if not found:
        raise TrainyardError(_nothing_divides(config, processes, gpus_per_node))
    return found


def _model_sizes(config: RunConfig, processes: int, gpus_per_node: int) -> Iterator[tuple[int, int]]:
    """Tensor and pipeline sizes that divide what they cut."""
    for tensor in range(1, gpus_per_node + 1):
        if processes % tensor or not divides_model(config, tensor):
            continue
        for pipeline in range(1, min(sum(blocks_by_stack(config).values()), processes // tensor) + 1):
            if processes % (tensor * pipeline) == 0:
                yield tensor, pipeline


def divides_model(config: RunConfig, tensor: int) -> bool:
    """Whether all that is cut, heads, features, vocabulary, can be shared by so many ranks."""
    return all(cut.divides(size, tensor) for cut, size in cuts_of(config.parameters).values())


def _places_divide(config: RunConfig, tensor: int) -> bool:
    return all(positions % tensor == 0 for _, positions in config.lengths.positions)


def _micro_batches(config: RunConfig, data: int) -> list[int]:
    """Sizes that divide a rank's share of the global batch, and of every size that the batch ramp goes through."""
    batches = {stretch.batch_size for stretch in config.timetable.stretches}
    if any(batch % data for batch in batches):
        return []
    return [size for size in range(1, min(batches) // data + 1) if not any(batch // data % size for batch in batches)]


def _zero_stages(config: RunConfig, pipeline: int, data: int) -> list[int]:
    """Stages that differ: of one data-parallel rank only 0; pipelines take 0 and 1, compiled blocks no 3."""
    if data == 1:
        return [0]
    if pipeline > 1:
        return [0, 1]
    return [0, 1, 2] if config.training.compile else [0, 1, 2, 3]


def _kinds() -> tuple[Recomputation, ...]:
    return ("none", "selective", "full")


def _nothing_divides(config: RunConfig, processes: int, gpus_per_node: int) -> str:
    def works(count: int) -> bool:
        sizes = _model_sizes(config, count, gpus_per_node)
        return any(_micro_batches(config, count // (tensor * pipeline)) for tensor, pipeline in sizes)

    below = [count for count in range(processes - 1, 0, -1) if works(count)][:1]
    above = [count for count in range(processes + 1, 2 * processes) if works(count)][:1]
    batches = sorted({stretch.batch_size for stretch in config.timetable.stretches})
    sizes = f"{batches[0]} to {batches[-1]}" if len(batches) > 1 else f"{batches[0]}"
    return (
        f"{config.name}: no layout divides a global batch of {sizes} samples on {processes} GPUs; nearest numbers of "
        f"GPUs that work: {either(below + above)}; or change training.global_batch_size"
    )
