"""From a verb's name to its command line, and how its process ends: `python -m tools.start preprocess ...`."""

import os
import runpy
import sys

INTERRUPTED = 130
"""exit code after Ctrl-C, as shells have it"""


def main(module: str) -> int | str | None:
    """Runs a module of `tools.commands` as the main program, and gives its exit code.

    Ctrl-C is told in one line, also while modules are imported.
    """
    code: int | str | None = 0
    try:
        runpy.run_module(f"tools.commands.{module}", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return _flushed(code)


def _flushed(code: int | str | None) -> int | str | None:
    """The exit code; 1 in silence where no one reads on, as after `| head -1`: Python itself would say so."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv.pop(1)))
