"""The runs as `tools/runs list` shows them: by family, each with what it is for beneath it."""

import difflib
import textwrap
from itertools import groupby

from megatron_patches.errors import TrainyardError
from megatron_patches.sizes import short
from tools.run_files.catalogue import RunLine


def chosen(lines: list[RunLine], beginning: str) -> list[RunLine]:
    """The runs whose names begin so; all where it is empty.

    Raises:
        TrainyardError: there is none; the nearest name is offered.
    """
    found = [line for line in lines if line.run.startswith(beginning)]
    if lines and not found:
        nearest = difflib.get_close_matches(beginning, [line.run for line in lines], n=1, cutoff=0.0)
        raise TrainyardError(f"no run's name begins with {beginning}; nearest: {nearest[0]}")
    return found


def by_family(lines: list[RunLine], width: int) -> str:
    """A block for each family; a run's name, size, tokens and baseline in one line, its purpose wrapped beneath."""
    return "\n\n".join(_block(family, list(runs), width) for family, runs in groupby(lines, lambda line: line.family))


def _block(family: str, runs: list[RunLine], width: int) -> str:
    longest = max(len(line.run) for line in runs)
    return "\n".join([family, *(_entry(line, longest, width) for line in runs)])


def _entry(line: RunLine, longest: int, width: int) -> str:
    head = f"  {line.run:<{longest}}  {short(line.parameters):>5}  {short(line.tokens):>5} tokens"
    if line.baseline:
        basis = f"from {line.baseline}"
        head += f"  {basis}" if len(head) + 2 + len(basis) <= width else f"\n      {basis}"
    wrap = textwrap.TextWrapper(
        max(width, 40), initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False
    )
    return f"{head}\n{wrap.fill(line.why)}"
