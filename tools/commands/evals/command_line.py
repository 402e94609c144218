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
from tools.commands.evals.compare import compare
from tools.commands.evals.plan import plan

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True)

app.command("compare")(compare)
app.command("plan")(plan)
