"""Tables of the guide, made of the record: a part of the page between two marks belongs to one table. Torch-free."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.markdown import markdown_text
from megatron_patches.profiling.time_breakdown import KINDS
from megatron_patches.report.record import Row
from megatron_patches.report.text import describe_layout
from megatron_patches.sizes import readable

_MARKED = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)

Column = tuple[str, Callable[[dict[str, Any]], str]]


def _spread(found: dict[str, Any]) -> str:
    return f"{found['median']:,.0f} ({found['low']:,.0f} to {found['high']:,.0f})"


def _ratio(found: dict[str, Any]) -> str:
    peer = found["peer"]
    if peer is None:
        return "-"
    ratio, shares = peer["ratio"], peer.get("share_ratio", 1.0)
    text = "" if shares == 1 else f", text {shares:.3f}"
    return f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f}){text}"


def _memory(found: dict[str, Any]) -> str:
    return readable(found["memory"]) if found["memory"] is not None else "-"


COLUMNS: Sequence[Column] = (
    ("layout", lambda found: describe_layout(found["layout"])),
    ("micro-batch", lambda found: str(found["micro_batch_size"])),
    ("tokens/s", lambda found: _spread(found["tokens_per_second"])),
    ("ours / peer", _ratio),
    ("TFLOP/s PaLM, BigScience, exact", lambda found: _tflops(found["tflops"])),
    ("MFU", lambda found: f"{found['mfu']:.1%}" if found["mfu"] is not None else "n/a"),
    ("memory", _memory),
    ("loss", lambda found: f"{found['final_loss']:.3f}"),
    ("measured", lambda found: f"{found['date'][:10]}, {found['commit']}, load {found['load']:.1f}"),
)


def _tflops(found: dict[str, float]) -> str:
    return ", ".join(f"{found[name]:.3g}" for name in ("palm", "bigscience", "causal"))


def render(page: str, rows: Sequence[Row]) -> str:
    """The page with its tables made anew.

    Raises:
        TrainyardError: the page marks a table of which the record has no row.
    """

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}{as_markdown(match['name'], rows)}\n{match[3]}"

    return _MARKED.sub(table, page)


def as_markdown(name: str, rows: Sequence[Row]) -> str:
    """One table: a line a row, where the time of profiled steps went, then the hardware and the commands."""
    chosen = [row for row in rows if row.table == name]
    if not chosen:
        raise TrainyardError(f"the record has no row of a table {name}; tools/tflops bench RUN --table {name} adds one")
    heads = ["row", *(head for head, _ in COLUMNS)]
    lines = [_line(heads), _line(["---"] * len(heads)), *(_line(_cells(row)) for row in chosen)]
    hardware = dict.fromkeys(row.found["hardware"] for row in chosen if row.found)
    versions = dict.fromkeys(
        ", ".join(f"{package} {version}" for package, version in row.found["versions"].items())
        for row in chosen
        if row.found
    )
    notes = [markdown_text(note) for note in (*hardware, *versions)]
    commands = "\n".join(["```", *dict.fromkeys(row.command for row in chosen), "```"])  # one may measure several rows
    return "\n".join([*lines, "", *_breakdowns(chosen), *([f"{'; '.join(notes)}."] if notes else []), commands])


def _breakdowns(rows: Sequence[Row]) -> list[str]:
    """Where the time of profiled steps went, a line a row and a blank one behind; nothing where none was profiled."""
    profiled = {row.row: row.found["breakdown"] for row in rows if row.found and row.found["breakdown"]}
    if not profiled:
        return []
    lines = [_line(["ms of a profiled step", "whole", *KINDS]), _line(["---"] * (2 + len(KINDS)))]
    for name, seconds in profiled.items():
        whole = sum(seconds.values())
        parts = (f"{each * 1e3:.1f} ({each / whole:.1%})" for each in (seconds.get(kind, 0.0) for kind in KINDS))
        lines.append(_line([name, f"{whole * 1e3:.1f}", *parts]))
    return [*lines, ""]


def _cells(row: Row) -> list[str]:
    if row.found is None:
        return [row.row, f"unmeasured: {row.unmeasured}", *[""] * (len(COLUMNS) - 1)]
    return [row.row, *(show(row.found) for _, show in COLUMNS)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(markdown_text(cell) for cell in cells)} |"


def render_page(path: Path, rows: Sequence[Row], check: bool) -> bool:
    """Whether the page was up to date; it is written anew unless it is only checked."""
    page = path.read_text(encoding="utf-8")
    made = render(page, rows)
    if made != page and not check:
        path.write_text(made, encoding="utf-8")
    return made == page
