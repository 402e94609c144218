"""The command `tools/evals tasks`."""

from pathlib import Path
from typing import Annotated

import typer


def tasks_command(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASK", help="Tasks of local files, for --write. Example: hellaswag:data/hellaswag.jsonl"
        ),
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the tasks into this new folder. Example: asked")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="With --write: solved items in front of each question. Example: 5")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --write: only the first N items, of each part. Example: 100")
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=2, help="With --write: most tokens that the model sees at once. Example: 4096")
    ] = None,
) -> None:
    """List the formats of local files, with an example row of each; or write tasks for lm-eval's own command line.

    The folder gets a YAML file for each task. With it, lm_eval asks a model the same as `tools/evals run`. The command
    that does so is printed.

    Example: tools/evals tasks --write asked hellaswag:data/hellaswag.jsonl --limit 100
    """
    from megatron_patches.errors import Refused
    from megatron_patches.evaluation.tasks.task import TaskSettings
    from tools.commands.evals import task_listing

    settings = TaskSettings(shots, limit, length)
    if write is not None:
        task_listing.write(write, tasks or [], settings)
    elif tasks or settings != TaskSettings():
        raise Refused("tasks are named to be written: add --write FOLDER, or leave all out for the list of formats")
    else:
        task_listing.list_formats()
