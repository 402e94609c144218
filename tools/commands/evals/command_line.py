"""Evaluate checkpoints on tasks, and show, draw and compare the results.

A result holds one task at one step, and the score of each item: runs/NAME/evals/step-0000001000/TASK.json.
"""

import typer

from tools.commands.evals.compare import compare_command
from tools.commands.evals.heatmap import heatmap_command
from tools.commands.evals.plan import plan_command
from tools.commands.evals.plot import plot_command
from tools.commands.evals.run import run_command
from tools.commands.evals.table import table_command
from tools.commands.evals.tasks import tasks_command

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True)
app.command("run")(run_command)
app.command("tasks")(tasks_command)
app.command("table")(table_command)
app.command("plot")(plot_command)
app.command("heatmap")(heatmap_command)
app.command("compare")(compare_command)
app.command("plan")(plan_command)
