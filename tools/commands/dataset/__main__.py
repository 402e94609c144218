"""The executable `tools/dataset`."""

from tools.command_line import run_app
from tools.commands.dataset.command_line import app
from tools.megatron_flags import OF_A_DATASET

run_app(app, "dataset", OF_A_DATASET)
