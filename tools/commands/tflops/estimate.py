"""`tools/tflops estimate`: a run's estimate on named machines."""

from collections.abc import Callable, Sequence

from megatron_patches.checkout import CHECKOUT
from megatron_patches.errors import Refused
from megatron_patches.estimate.report import Estimate, Machines, estimate
from megatron_patches.estimate.step_time import Speeds, work_of
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import plan_layout
from megatron_patches.run.reading import load_run
from megatron_patches.tuning.candidates import Candidate
from megatron_patches.tuning.fit import require_fit
from tools.commands.tflops.speeds import known_speeds, machines_of
from tools.run_files.catalogue import find_run


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
        Refused: with `refuse`, no GPU is named.
    """
    config = load_run(find_run(run, CHECKOUT), overrides)
    machines = machines_of(config, nodes, gpus_per_node, gpu)
    layout = plan_layout(config, machines.gpus)
    speeds = known_speeds(config, machines)
    if refuse:
        if machines.hardware is None:
            raise Refused("whether the run fits is not known without the GPU's memory; name the GPU with --gpu")
        seconds = _unknown_seconds if speeds is None else _seconds(config, machines, speeds)
        require_fit(config, layout, machines.hardware, machines.gpus_per_node, seconds)
    return estimate(config, layout, machines, speeds, tflops, dollars_per_gpu_hour)


def _unknown_seconds(candidate: Candidate) -> float:
    """For a GPU whose speed in the run's precision is not known: no candidate is faster than another."""
    return 0.0


def _seconds(config: RunConfig, machines: Machines, speeds: Speeds) -> Callable[[Candidate], float]:
    def seconds(candidate: Candidate) -> float:
        layout = candidate.layout(machines.gpus)
        return work_of(candidate.applied_to(config), layout, machines.gpus_per_node).seconds(speeds)

    return seconds
