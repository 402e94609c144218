"""The command `tools/evals tasks`."""

from pathlib import Path
from typing import Annotated

import typer

from megatron_patches.errors import Refused


def tasks_command(
    tasks: Annotated[list[str] | None, typer.Argument(metavar="TASK", help="Local tasks, for --write.")] = None,
    write: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the tasks into this new folder.")] = None,
    shots: Annotated[int | None, typer.Option(help="With --write: solved items in front of each question.")] = None,
    limit: Annotated[int | None, typer.Option(help="With --write: only so many items, of each part.")] = None,
    length: Annotated[int | None, typer.Option(help="With --write: most tokens that the model sees at once.")] = None,
) -> None:
    """List the formats of local files, with a row of each; or write tasks down for lm-eval's own command line.

    The folder gets a YAML file for each task. With it, lm_eval asks a model the same as `tools/evals run`, as in:

    \b
    tools/evals tasks --write asked hellaswag:hellaswag_val.jsonl --limit 100
    """
    from megatron_patches.evaluation.tasks.task import TaskSettings
    from tools.commands.evals import task_listing

    settings = TaskSettings(shots, limit, length)
    if write is not None:
        task_listing.write(write, tasks or [], settings)
    elif tasks or settings != TaskSettings():
        raise Refused("tasks are named to be written: add --write FOLDER, or leave all out for the list of formats")
    else:
        task_listing.list_formats()
