"""The executable `tools/generate`."""

from tools.command_line import run_app
from tools.commands.generate.command_line import app

run_app(app, "generate")
