"""The table of runs in train/README.md."""

from itertools import groupby
from pathlib import Path

from megatron_patches.atomic_files import write_atomically
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.markdown import markdown_text
from megatron_patches.sizes import short
from tools.run_files.catalogue import RunLine

TABLE_BEGIN = "<!-- runs: made by `tools/runs list --write` -->"
TABLE_END = "<!-- end of runs -->"


def markdown(lines: list[RunLine]) -> str:
    """The table as it stands in train/README.md, between its two markers: a row for each family, then its runs."""
    rows = ["| run | baseline | parameters | tokens | why |", "|---|---|---:|---:|---|"]
    for family, runs in groupby(lines, key=lambda line: line.family):
        rows.append(f"| **[{family}]({family}/README.md)** | | | | |")
        rows += [_row(line) for line in runs]
    return "\n".join([TABLE_BEGIN, *rows, TABLE_END])


def _row(line: RunLine) -> str:
    why = markdown_text(line.why)
    name = f"[{line.run}]({line.family}/{line.run}.yaml)"
    return f"| {name} | {line.baseline or ''} | {short(line.parameters)} | {short(line.tokens)} | {why} |"


def table_in_readme(readme: Path) -> str:
    """The table that train/README.md holds now, with its markers.

    Raises:
        TrainyardError: the file or one of the markers is missing.
    """
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    begin, end = text.find(TABLE_BEGIN), text.find(TABLE_END)
    if not 0 <= begin < end:
        raise TrainyardError(f"{readme}: the table of runs has no place; put back the lines {TABLE_BEGIN} {TABLE_END}")
    return text[begin : end + len(TABLE_END)]


def write_table(readme: Path, lines: list[RunLine]) -> None:
    """Replaces the table in train/README.md.

    Raises:
        TrainyardError: the file or one of the markers is missing.
    """
    text = readme.read_text(encoding="utf-8").replace(table_in_readme(readme), markdown(lines))
    write_atomically(readme, text.encode())
