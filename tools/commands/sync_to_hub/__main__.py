"""The executable `tools/sync-to-hub`."""

from tools.command_line import run_app
from tools.commands.sync_to_hub.command_line import app

run_app(app, "sync-to-hub")
