"""Standard output that takes any text, whatever its encoding."""

import io
import sys


def print_any_text() -> None:
    r"""From now on, what the encoding of stdout and stderr lacks is printed as an escape such as `\u6f22`.

    A log or a locale that is not UTF-8 would else end a program at its last line: when a model has run, or trained.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None in a process without it, anything in tests
            stream.reconfigure(errors="backslashreplace")
