"""Text of others in a Markdown page: it is read as text, never as a table's border, a link, code or HTML."""

import re

from megatron_patches.foreign.printable import printable

_STEERING = re.compile(r"[\\`*\[\]|~]")
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_BACKTICKS = re.compile("`+")


def markdown_text(text: object) -> str:
    """Text on one line, for a table's cell, a heading or a paragraph.

    An underscore within a word steers nothing (GitHub's Markdown), and most names have one: it stays.
    """
    line = printable(" ".join(str(text).split()))
    return _STEERING.sub(r"\\\g<0>", line.translate(_HTML))


def markdown_code(text: object) -> str:
    """The same as a span of code, such as an address; `|` is escaped, since the span may stand in a table."""
    line = printable(" ".join(str(text).split())).replace("|", r"\|")
    longest = max((len(run) for run in _BACKTICKS.findall(line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"
