"""Checkpoints evaluated on tasks: run, shown, drawn, compared.

A result is of one task at one step, with each item's own score: runs/NAME/evals/step-0000001000/TASK.json.
"""

import typer

from tools.commands.evals.tasks import tasks_command

app = typer.Typer(add_completion=False, no_args_is_help=True)
app.command("tasks")(tasks_command)


@app.callback(help=__doc__)
def evals() -> None:
    """A single command would else stand without its name."""
