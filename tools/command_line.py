"""What every command line shares: a user's mistake is one message on stderr and exit code 2."""

import atexit
import gc
import inspect
import sys
from collections.abc import Mapping

import typer

from megatron_patches.errors import TrainingFailed, TrainyardError
from megatron_patches.foreign.credentials import told
from megatron_patches.foreign.printable import printable
from megatron_patches.foreign.streams import print_any_text
from tools.megatron_flags import refuse_megatron_flags

_OBJECTS_BETWEEN_COLLECTIONS = 200_000


def run_app(app: typer.Typer, verb: str, megatron_flags: Mapping[str, str] | None = None) -> None:
    """Runs a verb's command line and ends the process with its exit code; from here on it is called by its own name.

    `megatron_flags` are those that a user of Megatron-LM may give to this verb, and what to say of each.
    """
    _collect_rarely()
    print_any_text()
    fill_lines(app)
    sys.argv[0] = f"tools/{verb}"
    try:
        refuse_megatron_flags(sys.argv[1:], megatron_flags or {})
        app(prog_name=f"tools/{verb}")
    except (TrainyardError, OSError) as error:  # an OSError names the file: no permission, no space, a missing folder
        print(f"error: {printable(told(error), layout=True)}", file=sys.stderr)
        sys.exit(2)
    except TrainingFailed as error:
        print(f"error: {printable(told(error), layout=True)}", file=sys.stderr)
        sys.exit(1)


def _collect_rarely() -> None:
    """Keeps Python from looking through all objects again and again while modules and tokenizers are loaded (a tenth of
    the start of tools/preprocess, which makes more than 50,000), and three times more at the end (0.2 s), when all of
    them go with the process.
    """
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    atexit.register(gc.freeze)


def fill_lines(app: typer.Typer) -> None:
    """Takes the line ends out of the paragraphs of help texts: Typer keeps those of all paragraphs but the first, and
    lines of 120 columns would be broken twice on a terminal of 80.
    """
    for command in app.registered_commands:
        text = command.help or inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(_filled(paragraph) for paragraph in text.split("\n\n")) or None


def _filled(paragraph: str) -> str:
    """A paragraph in one line; one that begins with \\b keeps its lines, as Click has it."""
    return paragraph if paragraph.lstrip().startswith("\b") else " ".join(paragraph.split())
