"""The executable `tools/dataset`."""

from tools.command_line import run_app
from tools.commands.dataset.command_line import app

run_app(app, "dataset")
