"""Results as a table: a row for each checkpoint, or for each part; a column for each metric, or for each checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megatron_patches.foreign.printable import printable, shortened
from megatron_patches.sizes import short
from tools.evaluation_views.columns import Column, Place, Value, places_of, tokens_at
from tools.evaluation_views.definitions import Definitions
from tools.evaluation_views.gathered import Gathered

NOTHING = "-"
BEST = "*"
INVALID = "!"
_RUN = "run"


@dataclass(frozen=True)
class Table:
    """Cells that are texts already."""

    head: list[str]
    rows: list[list[str]]
    fixed: int
    """so many columns, the first ones, say what a row is"""
    texts: int
    """of these so many, the first ones, are no numbers"""
    best_of: str
    """what the marked cell is the best of"""


def by_step(gathered: Gathered, columns: Sequence[Column]) -> Table:
    """A row for each checkpoint of each run, a column for each of `columns`."""
    several = len(gathered.runs) > 1
    tokens, states = tokens_at(gathered), _states(gathered)
    rows = []
    for place in places_of(gathered):
        known = [str(place.step), short(tokens[place]) if place in tokens else NOTHING]
        cells = [_cell(column, place, states) for column in columns]
        rows.append([*([printable(place.run)] if several else []), *known, *cells])
    head = [*([_RUN] if several else []), "step", "tokens", *(column.title for column in columns)]
    return Table(head, _aligned(rows, 2 + several), 2 + several, int(several), "column")


def by_run(table: Table) -> list[tuple[str, Table]]:
    """Each run with its rows, where the first column says the run; else all of it, without a name.

    Names of runs are long: a terminal has no room for one in each line.
    """
    if table.head[0] != _RUN:
        return [("", table)]
    runs = dict.fromkeys(row[0] for row in table.rows)
    rows = {run: [row[1:] for row in table.rows if row[0] == run] for run in runs}
    return [(run, Table(table.head[1:], rows[run], table.fixed - 1, 0, table.best_of)) for run in runs]


def by_part(gathered: Gathered, columns: Sequence[Column]) -> Table:
    """A row for each of `columns`, a column for each checkpoint."""
    several = len(gathered.runs) > 1
    places, states = places_of(gathered), _states(gathered)
    names = [f"{printable(place.run)} {place.step}" if several else f"step {place.step}" for place in places]
    rows = [[column.title, *(_cell(column, place, states) for place in places)] for column in columns]
    return Table(["", *names], _aligned(rows, 1), 1, 1, "row")


def legend(table: Table, gathered: Gathered, columns: Sequence[Column], definitions: Definitions) -> list[str]:
    """What a reader of the table must know: what its signs mean, what chance gives, what was left out of a task."""
    lines = []
    if any(column.best for column in columns):
        lines.append(f"{BEST} best of its {table.best_of}; ± one standard error")
    if any(value.found.invalid for column in columns for value in column.values.values()):
        lines.append(f"{INVALID} invalid")
    lines += _chances(columns)
    limits = {each.result.label: each.result.limit for each in gathered.found if each.result.limit is not None}
    lines += [f"{label}: only the first {limit:,} items, of each part" for label, limit in sorted(limits.items())]
    lines += definitions.notes()
    failed = [each for each in gathered.unfinished if each.state.state == "failed"]
    for each in failed:
        reason = shortened(each.state.message or "no reason is known")
        lines.append(f"failed: {each.run}@{each.state.step}, {each.state.label}: {reason}")
    return [*lines, *gathered.notes]


def as_markdown(table: Table, notes: Sequence[str]) -> bytes:
    """The same as a page: the table, and a list of the notes."""
    rule = ["---" if number < table.texts else "---:" for number in range(len(table.head))]
    lines = [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in (table.head, rule, *table.rows)
    ]
    return ("\n".join([*lines, "", *(f"- {printable(note)}" for note in notes)]).rstrip() + "\n").encode()


def number(value: float) -> str:
    """A metric in five digits or so: 0.2512, 12.345, 1234.5; zero has no sign."""
    return f"{value:z.4f}" if abs(value) < 10 else f"{value:.3f}" if abs(value) < 100 else f"{value:.5g}"


def _cell(column: Column, place: Place, states: Mapping[tuple[Place, str], str]) -> str:
    value = column.values.get(place)
    state = states.get((place, column.label), "")
    if value is None:
        return state or NOTHING
    mark = INVALID if value.found.invalid else BEST if place in column.best else ""
    return f"{_shown(value)}{mark}{f' ({state})' if state else ''}"


def _aligned(rows: Sequence[Sequence[str]], fixed: int) -> list[list[str]]:
    """The same with room for a mark in all cells of a column that has one: digits stand beneath each other."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    for column in columns[fixed:]:
        if any(cell.endswith((BEST, INVALID)) for cell in column):
            column[:] = [cell if cell.endswith((BEST, INVALID)) else f"{cell} " for cell in column]
    return [list(row) for row in zip(*columns, strict=True)]


def _shown(value: Value) -> str:
    error = value.metric.standard_error
    return number(value.metric.value) + ("" if error is None else f" ±{number(error)}")


def _states(gathered: Gathered) -> dict[tuple[Place, str], str]:
    """What there is to say of evaluations that have no result, or are made again."""
    return {(Place(each.run, each.state.step), each.state.label): each.state.state for each in gathered.unfinished}


def _chances(columns: Sequence[Column]) -> list[str]:
    """Of whole tasks; parts are many, and most often have the same."""
    told = []
    for column in columns:
        chances = {value.metric.chance for value in column.values.values() if value.metric.chance is not None}
        if chances and column.part is None:
            told.append(f"{column.title} {' or '.join(f'{chance:.4g}' for chance in sorted(chances))}")
    return [f"chance: {', '.join(told)}"] if told else []
