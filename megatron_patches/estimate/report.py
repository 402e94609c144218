"""Everything that can be said of a run before it starts, as numbers. Torch-free."""

from dataclasses import asdict, dataclass
from typing import Any

from megatron_patches.checkpoint.size import CheckpointSize, checkpoint_size, host_bytes
from megatron_patches.estimate.communication import Traffic, estimate_traffic, pipeline_bubble
from megatron_patches.estimate.memory import Memory, estimate_memory
from megatron_patches.estimate.step_time import Speeds, work_of
from megatron_patches.hardware.machines import Hardware, peak_of
from megatron_patches.models.interface.architecture import FlopsPerToken, Recomputation
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.run.parameter_count import active_parameters, count_parameters
from megatron_patches.run.summary import tokens_per_step

KINDS: tuple[Recomputation, ...] = ("none", "selective", "full")


@dataclass(frozen=True)
class Machines:
    """Where a run is to be laid out."""

    nodes: int
    gpus_per_node: int
    hardware: Hardware | None
    """None where the GPU is not known: then nothing is said of its memory, speed and cost"""

    @property
    def gpus(self) -> int:
        """Of all nodes."""
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class Duration:
    """How long the run takes, with the speed that it follows from."""

    step_seconds: float
    tokens_per_second: float
    days: float
    tflops: dict[str, float]
    """per GPU, by convention"""
    mfu: float | None
    """by the causal convention, of the peak in the run's precision"""
    by_kind: dict[str, float]
    """seconds of a step by kind of work; empty where the speed was given"""
    origin: str
    dollars: float | None


@dataclass(frozen=True)
class Estimate:
    """A run on machines."""

    config: RunConfig
    layout: Layout
    machines: Machines
    parameters: int
    active: int
    flops: FlopsPerToken
    memory: Memory
    totals: dict[str, int]
    """bytes of the largest rank with each kind of recomputation"""
    host_copy: int
    """bytes of the checkpoint's copy in the memory of each process's host"""
    traffic: list[Traffic]
    bubble: float
    checkpoint: CheckpointSize
    duration: Duration | None

    def as_json(self) -> dict[str, Any]:
        """For other programs: bytes, FLOPs, seconds."""
        return {
            "run": self.config.name,
            "layout": {**asdict(self.layout), "world_size": self.layout.world_size},
            "zero_stage": self.config.parallel.zero_stage,
            "nodes": self.machines.nodes,
            "gpus_per_node": self.machines.gpus_per_node,
            "gpu": self.machines.hardware.name if self.machines.hardware else None,
            "parameters": {"total": self.parameters, "active": self.active, "rank": self.memory.largest.parameters},
            "flops_per_token": asdict(self.flops),
            "memory": {
                "stages": [asdict(stage) | {"total": stage.total} for stage in self.memory.stages],
                "largest_by_recomputation": self.totals,
                "host_copy": self.host_copy,
            },
            "traffic": [asdict(each) for each in self.traffic],
            "pipeline_bubble": self.bubble,
            "checkpoint_bytes": {"full": self.checkpoint.full, "weights": self.checkpoint.weights},
            "duration": asdict(self.duration) if self.duration else None,
        }


def estimate(
    config: RunConfig,
    layout: Layout,
    machines: Machines,
    speeds: Speeds | None,
    tflops: float | None = None,
    dollars_per_gpu_hour: float | None = None,
) -> Estimate:
    """`tflops` per GPU by BigScience's formula, where they are known, stand in for the predicted step time."""
    memory = estimate_memory(config, layout)
    flops = config.flops
    return Estimate(
        config=config,
        layout=layout,
        machines=machines,
        parameters=count_parameters(config.model, config.lengths).total,
        active=active_parameters(config.model, config.lengths),
        flops=flops,
        memory=memory,
        totals={kind: estimate_memory(config, layout, kind).largest.total for kind in KINDS},
        host_copy=host_bytes(config, layout),
        traffic=estimate_traffic(config, layout, memory.largest, machines.gpus_per_node),
        bubble=pipeline_bubble(layout, layout.micro_batches(config.training)),
        checkpoint=checkpoint_size(config),
        duration=_duration(config, layout, machines, flops, speeds, tflops, dollars_per_gpu_hour),
    )


def _duration(
    config: RunConfig,
    layout: Layout,
    machines: Machines,
    flops: FlopsPerToken,
    speeds: Speeds | None,
    tflops: float | None,
    dollars_per_gpu_hour: float | None,
) -> Duration | None:
    tokens = tokens_per_step(config)
    by_kind: dict[str, float] = {}
    if tflops is not None:
        seconds = tokens * flops.bigscience / (tflops * 1e12 * layout.world_size)
        origin = f"{tflops:g} TFLOP/s for each GPU by BigScience's formula, as given"
    elif speeds is not None:
        work = work_of(config, layout, machines.gpus_per_node)
        seconds, by_kind, origin = work.seconds(speeds), work.by_kind(speeds), speeds.origin
    else:
        return None
    rate = tokens / seconds
    days = config.timetable.end.tokens / rate / 86_400
    peak = peak_of(machines.hardware, config.training.precision) if machines.hardware else None
    each = {name: rate * value / layout.world_size / 1e12 for name, value in asdict(flops).items()}
    return Duration(
        step_seconds=seconds,
        tokens_per_second=rate,
        days=days,
        tflops=each,
        mfu=each["causal"] / peak if peak else None,
        by_kind=by_kind,
        origin=origin,
        dollars=days * 24 * layout.world_size * dollars_per_gpu_hour if dollars_per_gpu_hour is not None else None,
    )
