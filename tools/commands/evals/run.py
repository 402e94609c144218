"""`tools/evals run`: checkpoints of a run evaluated on tasks."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from megatron_patches.errors import Refused
from tools.commands.evals.running.options import Later, Learning, Means, Questions
from tools.option_groups import takes_groups

if TYPE_CHECKING:
    from megatron_patches.artefacts.run_folder import RunFolder
    from megatron_patches.evaluation.selection import Which


@takes_groups
def run_command(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run that was launched: its name, a part that no other has, or its directory; or RUN@STEP, "
            "RUN@best, RUN@gold. Example: tr0a-4M-stdlib",
        ),
    ],
    questions: Questions,
    means: Means,
    learning: Learning,
    later: Later,
) -> None:
    """Evaluate checkpoints of a run on tasks; results that are there are not made again.

    Each result is written at once, so that the same command continues after a kill. A checkpoint that fails does not
    stop the others: the command reports it at the end, with exit code 1. Files of the training are only read.

    \b
    Examples:
      tools/evals run tr0a-4M-stdlib --tasks hellaswag:data/hellaswag.jsonl
      tools/evals run tr0a-4M-stdlib --tasks validation --steps every-500 --watch
      tools/evals run tr0a-4M-stdlib --tasks mmlu:data/mmlu --slurm evals.slurm
      tools/evals run tr22d-1M-demo --tasks glue-rte:data/RTE --seeds 5
    """
    later.refuse_together()
    asked = means.asked(questions, learning)
    folder, which = _run_and_which(run, questions.steps)
    from tools.commands.evals.running.plan import Plan

    plan = Plan(folder, which, asked)
    if later.slurm is not None:
        from tools.commands.evals.running.job_array import write_array

        write_array(plan, later.slurm, later.submit)
    elif later.watch:
        from tools.commands.evals.running.watching import watch

        sys.exit(watch(plan, later.watch_every))
    else:
        from tools.commands.evals.running.watching import look_once

        sys.exit(look_once(plan, later.come_back))


def _run_and_which(text: str, steps: str | None) -> tuple["RunFolder", "Which"]:
    from megatron_patches.artefacts.reference import parse_reference
    from megatron_patches.evaluation.selection import parse_which, which_named
    from tools.run_files.checkpoint_reference import find_run_directory

    reference = parse_reference(text)
    if reference is None:
        return find_run_directory(text), parse_which(steps or "new")
    if steps is not None:
        raise Refused("RUN@STEP names a checkpoint, and --steps names others; leave one of both out")
    return find_run_directory(reference.run), which_named(reference)
