"""Checkpoints evaluated on tasks: run, shown, drawn, compared.

A result is of one task at one step, with each item's own score: runs/NAME/evals/step-0000001000/TASK.json.
"""

import typer

from tools.commands.evals.compare import compare
from tools.commands.evals.heatmap import heatmap_command
from tools.commands.evals.plan import plan
from tools.commands.evals.plot import plot_command
from tools.commands.evals.run import run
from tools.commands.evals.table import table_command
from tools.commands.evals.tasks import tasks_command

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True)
app.command("run")(run)
app.command("tasks")(tasks_command)
app.command("table")(table_command)
app.command("plot")(plot_command)
app.command("heatmap")(heatmap_command)
app.command("compare")(compare)
app.command("plan")(plan)
