"""The executable `tools/inventory`."""

from tools.command_line import run_app
from tools.commands.inventory.command_line import app

run_app(app, "inventory")
