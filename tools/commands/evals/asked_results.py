"""What commands over results share: the runs and tasks that are named, what is told of them, files that are written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tools.evaluation_views.gathered import Gathered

Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...", help="Runs that were launched: their names, unique parts of names, or directories."
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK[,TASK...]", help=r"Show only these tasks, or labels such as mmlu.5-shot \[default: all]."
    ),
]
Invalid = Annotated[
    bool,
    typer.Option("--invalid", help="Also show results that are marked invalid, or whose checkpoint is, as such."),
]


def read(runs: Sequence[str], tasks: Sequence[str] | None, invalid: bool) -> "Gathered":
    """What there is of these tasks of the runs.

    Raises:
        Missing: a run or a task is not found, or has no result.
        TrainyardError: a run is named twice, or may be any of several.
    """
    from megatron_patches.errors import TrainyardError
    from megatron_patches.foreign.printable import printable
    from tools.evaluation_views.choice import only_tasks, words_of
    from tools.evaluation_views.gathered import gather
    from tools.run_files.checkpoint_reference import find_run_directory

    words = words_of(tasks or [])
    folders = [find_run_directory(run) for run in runs]
    resolved = [folder.path.resolve() for folder in folders]
    for name, where in zip(runs, resolved, strict=True):
        if resolved.count(where) > 1:
            raise TrainyardError(f"{printable(name)} is named twice; name each run once")
    return only_tasks(gather(folders, invalid), words)


def tell_unread(gathered: "Gathered") -> None:
    """Says what could not be read; then the exit code is 1.

    Raises:
        Exit: something could not be read.
    """
    from tools.terminal import tell_passed_over

    tell_passed_over(list(gathered.problems), "tools/evals table RUN --json")
    if gathered.problems:
        raise typer.Exit(1)


def write_file(file: Path, content: bytes) -> None:
    """Writes a file whole, in place of one of that name, and says so."""
    from megatron_patches.atomic_files import write_atomically
    from tools.terminal import remark

    write_atomically(file, content)
    remark(f"written: {file}")
