"""What several commands of `tools/inventory` share: opening everything, and rows of tables."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from megatron_patches.artefacts.inventory.artefact import Artefact, group_metric
from megatron_patches.artefacts.inventory.catalogue import open_catalogue
from megatron_patches.artefacts.inventory.invalidation import Marked
from megatron_patches.artefacts.inventory.names import resolve_artefact
from megatron_patches.artefacts.run_folder import RunFolder, rehearsal_of
from megatron_patches.checkout import CHECKOUT, runs_root
from megatron_patches.errors import TrainyardError
from megatron_patches.sizes import counted, readable
from tools.run_views.course import left_behind
from tools.run_views.views import Inventory, RunRecord
from tools.terminal import tell, tell_json, tell_passed_over

_ROWS_NAMED = 20


@contextmanager
def open_inventory(thorough: bool = False) -> Iterator[Inventory]:
    """The catalogue with the runs of this checkout."""
    with open_catalogue(thorough=thorough) as catalogue:
        yield Inventory(CHECKOUT, runs_root(), catalogue)


def by_kind(inventory: Inventory, names: Sequence[str]) -> dict[str, list[str]]:
    """Names of runs: `own`, `published` by others, and `rehearsals`, which would bury the runs that they are of."""
    kinds: dict[str, list[str]] = {"own": [], "published": [], "rehearsals": []}
    for name in names:
        kinds["rehearsals" if rehearsal_of(name) else "own" if inventory.is_own(name) else "published"].append(name)
    return kinds


def more_of_a_kind(kind: str, number: int) -> str:
    """What a list of runs says of those that it left out."""
    them = "it" if number == 1 else "them"
    if kind == "rehearsals":
        return f"{counted(number, 'rehearsal')} more: --rehearsals or --all shows {them}"
    whose = "your own" if kind == "own" else "published by others"
    return f"{counted(number, 'run')} more, {whose}: --all shows {them}"


RUN_HEAD = ["run", "state", "best", "gold", "locations", "detail"]
"""the least important behind: a narrow terminal has those beneath their row"""


def run_rows(records: Sequence[RunRecord]) -> list[list[str]]:
    """A run in the order of `RUN_HEAD`."""
    return [
        [
            record.name,
            f"{record.state.word}{' (declared)' if record.declared else ''}",
            str(record.best or ""),
            "; ".join(record.gold),
            "; ".join(record.locations),
            record.state.detail if record.state.word != "ready" else "",
        ]
        for record in records
    ]


def left_among(inventory: Inventory, artefacts: Sequence[Artefact]) -> set[Path]:
    """Manifests of those that a launch or a rollback left behind; of a run whose record is damaged none is known."""
    left: set[Path] = set()
    for run in dict.fromkeys(each.run for each in artefacts if each.kind == "checkpoint" and each.run):
        with suppress(TrainyardError):  # `show` tells it
            left |= left_behind(inventory.catalogue, RunFolder(inventory.runs / run)).keys()
    return left


def artefact_rows(artefacts: Sequence[Artefact], faulty: set[str], left: set[Path]) -> list[list[str]]:
    """Name, kind, id, status, size, tokens, metrics and layout of each artefact.

    Args:
        faulty: ids of what is invalid or came from something invalid.
        left: manifests of what was left behind.
    """
    return [
        [
            each.name,
            each.kind,
            each.id[:12],
            _status(each, faulty, left),
            readable(each.size),
            f"{each.tokens:,}" if each.tokens is not None else "",
            # of groups the one that the best goes by: a dozen would leave no room for the rest
            ", ".join(
                f"{name} {value:.4g}" for name, value in each.metrics.items() if not name.startswith(group_metric(""))
            ),
            each.layout or "",
        ]
        for each in artefacts
    ]


def _status(artefact: Artefact, faulty: set[str], left: set[Path]) -> str:
    word = "invalid" if artefact.state != "valid" else "invalid ancestor" if artefact.id in faulty else "valid"
    return f"{word}, left behind" if artefact.manifest in left else word


def tell_unreadable(inventory: Inventory, records: Sequence[RunRecord]) -> None:
    """What a view passed over, on stderr: of the folders, and of the runs that it shows.

    Raises:
        typer.Exit: with code 1, where it passed over anything; the answer was told all the same.
    """
    problems = inventory.problems() + [problem for record in records for problem in record.problems]
    tell_passed_over(problems, "tools/inventory verify, and problems in tools/inventory list --json")
    if problems:
        raise typer.Exit(1)


def several(inventory: Inventory, names: Sequence[str]) -> list[Artefact]:
    """The artefacts that the words of a command line mean: a run stands for all of its own; none for all there are."""
    if not names:
        return inventory.catalogue.artefacts("1", (), "ORDER BY run, step, manifest")
    found = []
    for name in names:
        if name in inventory.catalogue.run_names():
            found += inventory.catalogue.artefacts("run = ?", [name], "ORDER BY step, manifest")
        else:
            found.append(resolve_artefact(name, inventory.catalogue))
    return found


def tell_marked(marked: Marked, word: str, as_json: bool) -> None:
    """What `invalidate` or `revalidate` did."""
    if as_json:
        changed = [{"name": each.name, "id": each.id, "manifest": str(each.manifest)} for each in marked.changed]
        tell_json({"state": word, "changed": changed, "unchanged": marked.unchanged})
        return
    for each in marked.changed[:_ROWS_NAMED]:
        tell(f"{word}: {each.name} ({each.kind} {each.id[:12]})")
    if len(marked.changed) > _ROWS_NAMED:
        tell(f"{word}: {len(marked.changed) - _ROWS_NAMED:,} more")
    for line in marked.unchanged[:_ROWS_NAMED]:
        tell(line)
