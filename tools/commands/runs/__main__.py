"""The executable `tools/runs`."""

from tools.command_line import run_app
from tools.commands.runs.command_line import app

run_app(app, "runs")
