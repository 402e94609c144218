"""The executable `tools/checkpoint`."""

from tools.command_line import run_app
from tools.commands.checkpoint.command_line import app

run_app(app, "checkpoint")
