"""What happens before a launch: everything that can be known to be wrong is found here, in a second, without torch.

    python -m megatron_patches.plan RUN.yaml [--section.key value ...] (--local | --nodes N [--gpus-per-node G])

prints the run for people on stderr and, once the launch's folder exists, one line of JSON for `slurm/launch` on stdout.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from data_tools.errors import TrainyardError
from data_tools.run_data import DataPlan, RunData
from megatron_patches.accelerator import gpu_models, has_gpu
from megatron_patches.checkpoint.resume_check import check_resume
from megatron_patches.checkpoint.size import describe_checkpoints, require_space
from megatron_patches.config import load_run
from megatron_patches.device_checks import check_device
from megatron_patches.layout import plan_layout, require_whole_batches
from megatron_patches.parallel.layout import Layout
from megatron_patches.run_config import RunConfig
from megatron_patches.run_directory import CHECKOUT, RunDirectory, run_directory, start_launch
from megatron_patches.run_summary import aligned, describe_layout, describe_run, training_samples


@dataclass(frozen=True)
class Machines:
    """Where a run is to start."""

    nodes: int | None
    """SLURM nodes; None is this machine, without SLURM"""
    gpus_per_node: int | None = None
    """what SLURM gave the job on each node, if it said so"""


@dataclass(frozen=True)
class Plan:
    """A run that may be launched."""

    config: RunConfig
    directory: RunDirectory
    nodes: int
    processes_per_node: int
    layout: Layout
    data: DataPlan


def plan_run(path: Path, overrides: Sequence[str], machines: Machines) -> Plan:
    """Checks a run, its layout on these machines, its data and its checkpoints; writes nothing.

    Raises:
        TrainyardError: the run cannot start as it is; the message says the remedy.
    """
    config = load_run(path, overrides)
    _check_extras(config)
    check_device(config, has_gpu(), gpu_models())  # of the job's machines one is here: what it lacks, all lack
    nodes = machines.nodes or 1
    per_node = processes_per_node(config, machines)
    layout = plan_layout(config, nodes * per_node)
    validation_samples = config.evaluation.samples if config.evaluation else 0
    data = RunData(config.data, CHECKOUT, config.lengths)
    data.end_of_document(config.objective.reads_document_ends)
    amounts = data.check(config.model.vocabulary, training_samples(config), validation_samples)
    directory = run_directory(config)
    require_whole_batches(config, layout, consumed_samples=check_resume(config, directory))
    require_space(config, directory.checkpoints)
    return Plan(config, directory, nodes, per_node, layout, amounts)


def _check_extras(config: RunConfig) -> None:
    if config.logging.wandb is not None and find_spec("wandb") is None:
        raise TrainyardError(
            "logging.wandb is set and the package wandb is not installed: pip install -e '.[wandb]', or remove the key"
        )


def processes_per_node(config: RunConfig, machines: Machines) -> int:
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


def summary(plan: Plan) -> str:
    """The plan for people, one label a line."""
    lines = [
        *describe_run(plan.config),
        *describe_layout(plan.config, plan.layout),
        ("checkpoints", describe_checkpoints(plan.config, plan.layout)),
    ]
    if plan.config.data.allow_invalid:
        lines.append(("invalid data", "is taken where it is marked so (data.allow_invalid)"))
    return "\n".join([aligned(lines), plan.data.describe(), aligned([("run directory", str(plan.directory.path))])])


def launch(plan: Plan) -> dict[str, str | int]:
    """Makes the launch's folder; what `slurm/launch` needs to know to start it."""
    started = start_launch(plan.config)
    return {
        "run": plan.config.name,
        "run_directory": str(plan.directory.path),
        "launch": started.id,
        "launch_directory": str(started.directory),
        "processes_per_node": plan.processes_per_node,
        "nodes": plan.nodes,
        "world_size": plan.layout.world_size,
    }


def main(arguments: Sequence[str]) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser("python -m megatron_patches.plan", allow_abbrev=False)
    parser.add_argument("run", type=Path, help="the run's YAML")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--local", action="store_true", help="this machine, without SLURM")
    place.add_argument("--nodes", type=int, help="SLURM nodes of the job")
    parser.add_argument("--gpus-per-node", type=int, help="GPUs that SLURM gave the job on each node")
    options, overrides = parser.parse_known_args(arguments)
    try:
        plan = plan_run(options.run, overrides, Machines(options.nodes, options.gpus_per_node))
        print(summary(plan), file=sys.stderr)
        print(json.dumps(launch(plan)))
    except TrainyardError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
