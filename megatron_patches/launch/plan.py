"""What happens before a launch: everything that can be known to be wrong is found here, in a second, without torch.

    python -m megatron_patches.launch.plan RUN.yaml [--rehearse N] [--section.key value ...]
        (--local | --nodes N [--gpus-per-node G])

prints the run for people on stderr and, once the launch's folder exists, one line of JSON for `slurm/launch` on stdout.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from data_tools.data_plan import DataPlan
from data_tools.data_warnings import data_warnings
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.checkpoint.size import describe_checkpoints
from megatron_patches.checkpoint.starting_point import write_initial_weights
from megatron_patches.ending import end_by_term
from megatron_patches.errors import TrainyardError, refuse
from megatron_patches.foreign.credentials import told
from megatron_patches.foreign.json_text import parse_object
from megatron_patches.foreign.streams import print_any_text
from megatron_patches.launch.checks import launch_problems
from megatron_patches.launch.continuation import Continuation, course, find_continuation
from megatron_patches.launch.facts import LaunchFacts, LaunchTarget
from megatron_patches.launch.init_from.folder_import import with_imported_weights
from megatron_patches.launch.init_from.resolution import StartingPoint
from megatron_patches.launch.rank_settings import quieten_libraries
from megatron_patches.launch.rehearsal_end import Rehearsed
from megatron_patches.launch.rollback_record import with_rollback
from megatron_patches.parallel.layout import Layout
from megatron_patches.run.config import RunConfig
from megatron_patches.run.ownership import Former, refuse_living_owner
from megatron_patches.run.reading import read_run
from megatron_patches.run.rehearsal import claim, rehearse, whole_steps
from megatron_patches.run.run_directory import start_launch
from megatron_patches.run.summary import aligned, describe_layout, describe_run


@dataclass(frozen=True)
class Plan:
    """A run that may be launched."""

    config: RunConfig
    directory: RunFolder
    nodes: int
    processes_per_node: int
    layout: Layout
    data: DataPlan
    warnings: Sequence[str]
    """of its data"""
    former: Former | None
    """the newest launch so far, which is over or dead"""
    rehearsed: Rehearsed | None = None
    continuation: Continuation | None = None
    """where it goes on; None where it begins at step 0"""
    start: StartingPoint | None = None
    """whose weights it begins with, where it has no checkpoint of its own"""


def plan_run(path: Path, overrides: Sequence[str], machines: LaunchTarget, rehearsal_steps: int | None = None) -> Plan:
    """Checks a run with its layout on these machines, its data and its checkpoints.

    It writes nothing but what is made of data once, where that is missing: hashes of documents and plans of samples
    beside the datasets, what is known and held out of raw text in the run's folder.

    With `rehearsal_steps` what is planned is its rehearsal.

    Raises:
        TrainyardError: the run cannot start as it is; every problem is told, one a line, each with its remedy.
    """
    run, rehearsed = read_run(path, overrides), None
    if rehearsal_steps is not None:
        rehearsed = Rehearsed(path, tuple(overrides), run.config.timetable.steps)
        run = rehearse(run, rehearsal_steps, overrides)
    facts = LaunchFacts(with_rollback(run), machines)
    former = refuse_living_owner(facts.directory)  # alone: what else is to be said changes while that one trains
    refuse(launch_problems(facts))
    amounts = facts.data.plan(facts.training_samples, facts.validation_samples)
    return Plan(
        facts.config, facts.directory, facts.nodes, facts.processes_per_node, facts.layout, amounts,
        [*amounts.warnings(), *data_warnings(facts.data)], former, rehearsed, find_continuation(facts, amounts.epoch),
        facts.starting_point,
    )  # fmt: skip


def summary(plan: Plan, width: int | None = None) -> str:
    """The plan for people, one label a line, then the learning rate's course; folded to `width` where it is given."""
    lines = [
        *describe_run(plan.config),
        *describe_layout(plan.config, plan.layout),
        ("checkpoints", describe_checkpoints(plan.config, plan.layout)),
    ]
    if plan.config.data.allow_invalid:
        lines.append(("invalid data", "is taken where it is marked so (data.allow_invalid)"))
    if plan.config.checkpoint.allow_from_scratch:
        what = "at step 0, beside what cannot be resumed from, where no checkpoint is whole"
        lines.append(("may begin", f"{what} (checkpoint.allow_from_scratch)"))
    if plan.start:
        labels = ["begins from"] + [""] * (len(plan.start.lines) - 1)
        lines += zip(labels, plan.start.lines, strict=True)
    lines += [*plan.data.describe(), *(("warning", text) for text in plan.warnings)]
    lines.append(("run directory", str(plan.directory.path)))
    goes_on = plan.continuation
    if goes_on:
        lines += goes_on.describe()
    elif not plan.start:
        lines.append(("begins", "at step 0: the run has no checkpoint to resume from"))
    rates = course(plan.config, goes_on.taken.step if goes_on else None, width or 80)
    return f"{aligned(lines, width)}\n\n{rates}\n"


def launch(plan: Plan, owner: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Makes the launch's folder; what `slurm/launch`, which is its `owner`, needs to know to start it."""
    assert not (plan.start and plan.start.pending), "what the run begins from is not imported yet"
    if plan.rehearsed:
        claim(plan.directory)
    started = start_launch(plan.config, owner, plan.former)
    if plan.start:
        write_initial_weights(started.directory, plan.start.weights)
    return {
        "afterwards": plan.rehearsed.command(started.directory) if plan.rehearsed else [],
        "run": plan.config.name,
        "run_directory": str(plan.directory.path),
        "launch": started.id,
        "launch_directory": str(started.directory),
        "processes_per_node": plan.processes_per_node,
        "nodes": plan.nodes,
        "world_size": plan.layout.world_size,
    }


class _Parser(argparse.ArgumentParser):
    """People start it by `slurm/launch`, whose usage is another."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; slurm/launch --help says how a run is started\n")


def launch_parser(program: str) -> argparse.ArgumentParser:
    """The words of `slurm/launch` that are no overrides of the run, and what it adds to them."""
    parser = _Parser(program, allow_abbrev=False)
    parser.add_argument("run", type=Path, help="the run's YAML")
    parser.add_argument("--rehearse", nargs="?", const="", metavar="N", help="the whole course of the run in N steps")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--local", action="store_true", help="this machine, without SLURM")
    place.add_argument("--nodes", type=int, help="SLURM nodes of the job")
    parser.add_argument("--gpus-per-node", type=int, help="GPUs that SLURM gave the job on each node")
    parser.add_argument("--owner", help="the process that starts what is planned, as JSON; it keeps the heartbeat")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line; returns its exit code."""
    print_any_text()
    parser = launch_parser("python -m megatron_patches.launch.plan")
    options, overrides = parser.parse_known_args(arguments)
    try:
        owner = parse_object(options.owner.encode(), "--owner") if options.owner else None
        target = LaunchTarget(options.nodes, options.gpus_per_node)
        plan = plan_run(
            options.run, overrides, target, None if options.rehearse is None else whole_steps(options.rehearse)
        )
        if plan.start and plan.start.pending:
            # before the claim: the heartbeat begins with the launch's folder, and an import takes minutes
            quieten_libraries()
            end_by_term()
            plan = replace(plan, start=with_imported_weights(plan.start, plan.config))
        width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None  # whole in a file or a pipe
        claimed = launch(plan, owner)  # before anything is said of it: another launch may have been quicker
        print(summary(plan, width), file=sys.stderr)
        print(json.dumps(claimed))
    except TrainyardError as error:
        print(f"error: {told(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
