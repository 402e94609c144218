"""What commands say: text that may come from others is escaped on its way to a terminal, here and nowhere else."""

import json
import math
import shutil
import sys
import textwrap
from typing import Any

from megatron_patches.foreign.printable import printable

_TOLD = 200
_NARROWEST = 24
"""columns of a terminal for which lines are still broken"""


def tell(text: object = "", layout: bool = False) -> None:
    """Prints a line of an answer.

    Args:
        layout: the text has lines and tabs of its own, and what others wrote in it has none: a note of two lines
            could pass for a line of ours.
    """
    print(printable(text, layout))


def tell_filled(text: object, beginning: str = "", indent: str = "  ") -> None:
    """The same, on a terminal in lines that are broken between words; in a pipe it is one line.

    Args:
        beginning: of the first line, its own spaces kept.
        indent: of the further lines.
    """
    print("\n".join(filled(text, beginning, indent)))


def filled(text: object, beginning: str = "", indent: str = "  ") -> list[str]:
    """The lines that `tell_filled` prints."""
    line = printable(text)
    if not sys.stdout.isatty():
        return [beginning + line]
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    return textwrap.wrap(
        line, width, initial_indent=beginning, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    ) or [beginning]  # fmt: skip


def remark(text: object, layout: bool = False) -> None:
    """Prints what is no answer, such as what is being read, on stderr."""
    print(printable(text, layout), file=sys.stderr)


def tell_passed_over(problems: list[str], all_of_them: str) -> None:
    """What a view could not read, a line each on stderr.

    Args:
        all_of_them: the command that tells all where there are many.
    """
    told = list(dict.fromkeys(problems))
    for problem in told[:_TOLD]:
        remark(f"passed over: {problem}")
    if len(told) > _TOLD:
        remark(f"passed over: {len(told) - _TOLD:,} more; all of them: {all_of_them}")


def tell_json(value: Any) -> None:
    """Prints an answer for other programs: ASCII alone, and a number that JSON lacks (NaN, infinity) as its name."""
    print(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value
