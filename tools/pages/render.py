"""`checkpoints.md` and the table of states in train/README.md, drawn from the repository alone.

What people write between the marks of a notes section stays, whatever else changes; notes of a section that is no
longer drawn are kept at the end of the page.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron_patches.atomic_files import write_atomically
from megatron_patches.configuration.layers import base_of
from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.markdown import markdown_code, markdown_text
from megatron_patches.sizes import short
from tools.pages.snapshot import OwnRun, read_snapshot
from tools.run_files.catalogue import run_files
from tools.run_views.best_metric import best_metric
from tools.run_views.published import PublishedGroup, PublishedRun, read_published

PAGE = "checkpoints.md"
BEGIN = "<!-- states: made by `tools/inventory render` -->"
END = "<!-- end of states -->"
_NOTES = re.compile(r"<!-- notes on (.+?): what stands here stays -->\n(.*?)<!-- end of notes -->", re.DOTALL)
_HEAD = ("run", "state", "baseline", "steps", "tokens", "best metric", "gold", "trackers", "locations")
_ALIGN = "|---|---|---|---:|---:|---|---|---|---|"

_INTRODUCTION = """\
# Checkpoints

What was trained, what became of it, and where it lies. This page is made by `tools/inventory render`, from `train/`,
from `published/*.yaml` (entries that people edit) and from what was seen of runs on the day named; `tools/runs lint`
says when it is stale. What stands in a notes section stays. Of the runs on your machine `tools/inventory list` knows
today's state, `tools/inventory where RUN@STEP` every copy and when it was last compared.
"""


def render(checkout: Path) -> list[Path]:
    """Writes both; returns the files that changed."""
    changed = []
    for path, text in _texts(checkout).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text.encode())
            changed.append(path)
    return changed


def stale_files(checkout: Path) -> list[str]:
    """One line for each of the files that rendering would change."""
    return [
        f"{path.relative_to(checkout)}: stale; `tools/inventory render` makes it anew"
        for path, text in _texts(checkout).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]


def _texts(checkout: Path) -> dict[Path, str]:
    """What each file is to hold.

    Raises:
        TrainyardError: an entry is not as it must be, or train/README.md has lost its marks.
    """
    groups, own = read_published(checkout), read_snapshot(checkout)
    page, readme = checkout / PAGE, checkout / "train" / "README.md"
    notes = _notes_in(page.read_text(encoding="utf-8")) if page.is_file() else {}
    return {page: _page(checkout, groups, own, notes), readme: _readme(checkout, readme, groups, own)}


def _page(checkout: Path, groups: Sequence[PublishedGroup], own: dict[str, OwnRun], notes: dict[str, str]) -> str:
    left = dict(notes)
    parts = [_INTRODUCTION, "## Runs of this repository\n"]
    parts.append(_table(_own_rows(checkout, own)))
    parts.append(_note_section("runs of this repository", left))
    for group in groups:
        preface = f"Source: {markdown_text(group.source)}. {markdown_text(group.preface)}".rstrip()
        parts.append(f"## {markdown_text(group.title)}\n\n{preface}\n")
        for heading, runs in _by_heading(group.runs):
            if heading:
                parts.append(f"### {markdown_text(heading[0].upper() + heading[1:])}\n")
            parts.append(_table([_published_row(run) for run in runs]))
            if details := "".join(_details(run) for run in runs):
                parts.append(details)
        parts.append(_note_section(markdown_text(group.title), left))
    for title in sorted(left):
        if left[title].strip():
            parts.append(f"## Notes on {title}, which is no longer listed\n")
            parts.append(_note_section(title, {title: left[title]}))
    return "\n".join(parts).rstrip() + "\n"


def _by_heading(runs: Sequence[PublishedRun]) -> Iterator[tuple[str, list[PublishedRun]]]:
    headings = dict.fromkeys(run.group for run in runs)
    for heading in headings:
        yield heading, [run for run in runs if run.group == heading]


def _own_rows(checkout: Path, own: dict[str, OwnRun]) -> list[list[str]]:
    """Runs that were launched, and those of tr0, which every machine can launch."""
    rows = []
    for file in run_files(checkout):
        seen = own.get(file.stem)
        if seen is None and not file.parent.name.startswith("tr0-"):
            continue
        base = base_of(file)
        name = f"[{file.stem}](train/{file.parent.name}/{file.name})"
        rows.append([name, *_own_cells(seen, base.stem if base else "")])
    return rows


def _own_cells(seen: OwnRun | None, baseline: str) -> list[str]:
    if seen is None:
        return ["ready (never launched)", baseline, "", "", "", "", "", ""]
    return [
        markdown_text(f"{seen.state}, as of {seen.as_of}"),
        baseline,
        f"{seen.step:,}" if seen.step is not None else "",
        short(seen.tokens) if seen.tokens else "",
        markdown_text(seen.best),
        markdown_text("; ".join(seen.gold)),
        markdown_text("; ".join(seen.trackers)),
        "; ".join(markdown_code(location) for location in seen.locations),
    ]


def _published_row(run: PublishedRun) -> list[str]:
    name = f"**{markdown_text(run.name)}**"
    name += f" ({markdown_text(run.run)})" if run.run and run.run != run.name else ""
    best = best_metric((name, value, None) for name, value in run.metrics.items())
    return [
        name,
        markdown_text(_declared_state(run)),
        markdown_text(run.baseline or ""),
        f"{run.steps:,}" if run.steps is not None else "",
        short(run.tokens) if run.tokens else "",
        markdown_text(f"{best.name} {best.value:g}") if best else "",
        "; ".join(_gold(run)),
        markdown_text("; ".join(run.trackers)),
        "; ".join(_locations(run)) or "none given",
    ]


def _declared_state(run: PublishedRun) -> str:
    if run.state == "deprecated":
        return f"deprecated: {run.reason}"
    quoted = f'"{run.declared}"' if run.declared else ""
    if run.state == "unknown":
        return f"not known{f', declared as {quoted}' if quoted else ''}"
    return f"{run.state}, as declared{f': {quoted}' if quoted else ''}"


def _gold(run: PublishedRun) -> list[str]:
    return [
        f"**{markdown_text(gold.name)}**"
        + (f": {markdown_text(gold.metric)} {gold.value:g}" if gold.metric and gold.value is not None else "")
        for gold in run.gold
    ]


def _locations(run: PublishedRun) -> list[str]:
    found = []
    for location in run.locations:
        marks = [*(["**truncated**"] if location.truncated else []), "unverified"]
        marks += [markdown_text(location.note)] if location.note else []
        found.append(f"{markdown_code(location.at)} ({', '.join(marks)})")
    return found


def _details(run: PublishedRun) -> str:
    lines = [
        f"  - gold {markdown_text(gold.name)}: {markdown_code(gold.at)}, unverified; {markdown_text(gold.why)}"
        for gold in run.gold
    ]
    lines += [f"  - {markdown_text(heading)}: {markdown_text(text)}" for heading, text in run.details.items()]
    lines += [f"  - note: {markdown_text(run.notes)}"] if run.notes else []
    return "".join([f"- {markdown_text(run.name)}\n", *(f"{line}\n" for line in lines)]) if lines else ""


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Cells are Markdown: what others wrote in them is escaped already."""
    lines = [f"| {' | '.join(_HEAD)} |", _ALIGN]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _note_section(title: str, notes: dict[str, str]) -> str:
    """The section of a title; takes its text out of the notes."""
    text = notes.pop(title, "\n")
    return f"<!-- notes on {title}: what stands here stays -->\n{text}<!-- end of notes -->\n"


def _notes_in(page: str) -> dict[str, str]:
    return {found[1]: found[2] for found in _NOTES.finditer(page)}


def _readme(checkout: Path, readme: Path, groups: Sequence[PublishedGroup], own: dict[str, OwnRun]) -> str:
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    begin, end = text.find(BEGIN), text.find(END)
    if not 0 <= begin < end:
        raise TrainyardError(f"{readme}: the table of states has no place; put back the lines {BEGIN} {END}")
    return text[:begin] + "\n".join([BEGIN, _table(_state_rows(checkout, groups, own)) + END]) + text[end + len(END) :]


def _state_rows(checkout: Path, groups: Sequence[PublishedGroup], own: dict[str, OwnRun]) -> list[list[str]]:
    """Of the runs under train/ those of which more is known than that they could be launched."""
    published = {run.run: run for group in groups for run in reversed(group.runs) if run.run}
    rows = []
    for file in run_files(checkout):
        seen, other = own.get(file.stem), published.get(file.stem)
        base = base_of(file)
        baseline = base.stem if base else ""
        name = f"[{file.stem}]({file.parent.name}/{file.name})"
        if seen is not None or (other is None and file.parent.name.startswith("tr0-")):
            rows.append([name, *_own_cells(seen, baseline)])
        elif other is not None:
            row = _published_row(other)
            rows.append([name, f"published; {row[1]}", baseline, *row[3:]])
    return rows
