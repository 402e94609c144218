"""The executable `tools/tflops`."""

from tools.command_line import run_app
from tools.commands.tflops.command_line import app

run_app(app, "tflops")
