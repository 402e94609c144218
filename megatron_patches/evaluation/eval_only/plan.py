"""What happens before a launch with `--eval-only`: what can be known to be wrong is found here, without torch.

    python -m megatron_patches.evaluation.eval_only.plan RUN.yaml --eval-only [STEP | all] [--section.key value ...]
        (--local | --nodes N [--gpus-per-node G])

prints what is validated for people on stderr and, once the launch has a folder, one line of JSON for `slurm/launch` on
stdout. Nothing is asked of the run but its checkpoints: it may be training.
"""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.evaluations.shelf import evaluation_folder
from megatron_patches.artefacts.folders import step_of
from megatron_patches.artefacts.run_folder import RunFolder, folder_problems
from megatron_patches.ending import end_by_term
from megatron_patches.errors import Refused, TrainyardError, refuse
from megatron_patches.evaluation.eval_only.asked import (
    AskedCheckpoint,
    asked_of,
    choose_checkpoints,
    layout_of,
    make_folder,
)
from megatron_patches.evaluation.losses.loss_data import LossData, open_loss_data
from megatron_patches.foreign.credentials import told
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.printable import printable
from megatron_patches.foreign.streams import print_any_text
from megatron_patches.launch.device_checks import device_problems
from megatron_patches.launch.facts import LaunchTarget, processes_per_node
from megatron_patches.launch.plan import launch_parser
from megatron_patches.launch.preparation import PreparationProgress
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.run.layout import lay_out
from megatron_patches.run.reading import read_run
from megatron_patches.run.run_directory import run_directory
from megatron_patches.run.summary import aligned
from megatron_patches.sizes import counted

RANK = "megatron_patches.evaluation.eval_only.rank"
_TOLD = 5


@dataclass(frozen=True)
class EvalOnlyPlan:
    """Checkpoints that may be validated, and where."""

    config: RunConfig
    run: RunFolder
    nodes: int
    processes_per_node: int
    layout: Layout
    asked: Sequence[AskedCheckpoint]
    data: LossData
    """of the last of them"""
    passed_over: Sequence[str]


def plan_eval_only(path: Path, overrides: Sequence[str], which: str, machines: LaunchTarget) -> EvalOnlyPlan:
    """Checks the run's YAML, its layout on these machines, the checkpoints, and the data of each.

    It writes nothing but plans of samples and hashes of documents, where other lengths need others.

    Raises:
        TrainyardError: it cannot be done as it is; the remedy is told.
    """
    read = read_run(path, overrides)
    config, run = read.config, run_directory(read.config)
    refuse([*read.texts(), *device_problems(config, machines.gpu, machines.gpu_models), *folder_problems(run)])
    processes = processes_per_node(config, machines)
    lay_out(config, (machines.nodes or 1) * processes)
    passed_over: list[str] = []
    folders = choose_checkpoints(run, which, config.data.allow_invalid, passed_over.append)
    asked = [asked_of(folder, config) for folder in folders]
    data = [
        open_loss_data(each.config, each.folder, each.manifest, each.task, PreparationProgress()) for each in asked
    ][-1]
    layout = layout_of(config, (machines.nodes or 1) * processes)
    return EvalOnlyPlan(config, run, machines.nodes or 1, processes, layout, asked, data, passed_over)


def summary(plan: EvalOnlyPlan, width: int | None = None) -> str:
    """The plan for people, one label a line."""
    layout, groups = plan.layout, plan.data.groups
    steps = [f"{step_of(each.folder):,}" for each in plan.asked]
    shown = steps if len(steps) <= _TOLD else [steps[0], "...", steps[-1]]
    told_groups = ", ".join(f"{group.name} ({counted(group.count, 'sample')})" for group in groups[:_TOLD])
    further = f" and {len(groups) - _TOLD} more" if len(groups) > _TOLD else ""
    last = plan.asked[-1]
    lines = [
        ("run", f"{plan.config.name} ({plan.config.family}), validation alone"),
        ("checkpoints", f"{counted(len(steps), 'step')}: {', '.join(shown)}; weights alone are loaded"),
        *(("passed over", problem) for problem in plan.passed_over),
        ("groups", told_groups + further),
        ("length", f"{counted(plan.data.lengths.of('tokens'), 'token')} at once"),
        (
            "layout",
            f"{counted(layout.world_size, 'process', 'processes')} = tensor {layout.tensor} x pipeline "
            f"{layout.pipeline} x data {layout.data}, micro-batch {plan.config.training.micro_batch_size}",
        ),
        ("results", printable(evaluation_folder(plan.run, step_of(last.folder)) / f"{last.task.label}.json")),
    ]
    return aligned(lines, width) + "\n"


def launch(plan: EvalOnlyPlan, owner: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the launch's folder; what `slurm/launch`, which is its `owner`, needs to know to start it."""
    folder = make_folder(plan.run, plan.config, [each.folder for each in plan.asked], owner)
    return {
        "launch_directory": str(folder),
        "processes_per_node": plan.processes_per_node,
        "nodes": plan.nodes,
        "rank": RANK,
    }


def main(arguments: Sequence[str]) -> int:
    """The command line; returns its exit code."""
    print_any_text()
    parser = launch_parser("python -m megatron_patches.evaluation.eval_only.plan")
    parser.add_argument(
        "--eval-only", nargs="?", const="", required=True, metavar="STEP", help="the newest checkpoint, a step, or all"
    )
    options, overrides = parser.parse_known_args(arguments)
    try:
        if options.rehearse is not None:
            raise Refused("--rehearse and --eval-only: a rehearsal trains, and --eval-only does not; leave out one")
        owner = parse_object(options.owner.encode(), "--owner") if options.owner else {}
        end_by_term()
        target = LaunchTarget(options.nodes, options.gpus_per_node)
        plan = plan_eval_only(options.run, overrides, options.eval_only, target)
        width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None  # whole in a file or a pipe
        made = launch(plan, owner)
        print(summary(plan, width), file=sys.stderr)
        print(json.dumps(made))
    except TrainyardError as error:
        print(f"error: {told(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
