"""The executable `tools/evals`."""

from tools.command_line import run_app
from tools.commands.evals.command_line import app

run_app(app, "evals")
