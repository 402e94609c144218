"""`tools/tflops estimate`: a run's estimate on named machines."""

from collections.abc import Sequence
from pathlib import Path

from megatron_patches.config import RunConfig, load_run
from megatron_patches.estimate.report import Estimate, Machines, estimate
from megatron_patches.estimate.step_time import Speeds, data_sheet_speeds, work_of
from megatron_patches.hardware import hardware_named
from megatron_patches.layout import plan_layout
from megatron_patches.tuning.candidates import Candidate
from megatron_patches.tuning.fit import require_fit
from tools.runs_catalogue import find_run

CHECKOUT = Path(__file__).resolve().parents[1]


def estimate_run(
    run: str,
    overrides: Sequence[str],
    nodes: int,
    gpus_per_node: int | None,
    gpu: str | None,
    tflops: float | None,
    dollars_per_gpu_hour: float | None,
    refuse: bool,
) -> Estimate:
    """The estimate of a run, by name or path.

    Raises:
        TrainyardError: the run or its layout is wrong, the GPU is unknown, or, with `refuse`, it does not fit.
    """
    config = load_run(find_run(run, CHECKOUT), overrides)
    machines = machines_of(config, nodes, gpus_per_node, gpu)
    layout = plan_layout(config, machines.gpus)
    speeds = known_speeds(config, machines)
    if refuse and machines.hardware is not None and speeds is not None:
        require_fit(config, layout, machines.hardware, machines.gpus_per_node, _seconds(config, machines, speeds))
    return estimate(config, layout, machines, speeds, tflops, dollars_per_gpu_hour)


def machines_of(config: RunConfig, nodes: int, gpus_per_node: int | None, gpu: str | None) -> Machines:
    """Where the run is to be; by default so many GPUs as hold one copy of the model, at most 8 a node."""
    model = config.parallel.tensor * config.parallel.pipeline
    if gpus_per_node is None:
        gpus_per_node = next(count for count in range(min(8, model), 0, -1) if model % count == 0)
        nodes = max(nodes, model // gpus_per_node)
    return Machines(nodes, gpus_per_node, hardware_named(gpu) if gpu else None)


def known_speeds(config: RunConfig, machines: Machines) -> Speeds | None:
    """What is known of the GPU's speed in the run's precision."""
    if machines.hardware is None:
        return None
    return data_sheet_speeds(machines.hardware, config.training.precision)


def _seconds(config: RunConfig, machines: Machines, speeds: Speeds):  # type: ignore[no-untyped-def]
    def seconds(candidate: Candidate) -> float:
        layout = candidate.layout(machines.gpus)
        return work_of(candidate.applied_to(config), layout, machines.gpus_per_node).seconds(speeds)

    return seconds
