"""What every command line shares: a user's mistake is one message on stderr and exit code 2."""

import sys

import typer

from megatron_patches.errors import TrainingFailed, TrainyardError
from megatron_patches.foreign.credentials import told
from megatron_patches.foreign.printable import printable
from megatron_patches.foreign.streams import print_any_text


def run_app(app: typer.Typer, verb: str) -> None:
    """Runs a verb's command line and ends the process with its exit code; from here on it is called by its own name."""
    print_any_text()
    sys.argv[0] = f"tools/{verb}"
    try:
        app(prog_name=f"tools/{verb}")
    except (TrainyardError, OSError) as error:  # an OSError names the file: no permission, no space, a missing folder
        print(f"error: {printable(told(error), layout=True)}", file=sys.stderr)
        sys.exit(2)
    except TrainingFailed as error:
        print(f"error: {printable(told(error), layout=True)}", file=sys.stderr)
        sys.exit(1)
