"""A query to the inventory: which runs its words mean, and which artefacts fit."""

from dataclasses import dataclass, replace

from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.evaluated import unknown_metrics
from megatron_patches.artefacts.inventory.lineage import faulty_ids
from megatron_patches.artefacts.inventory.names import resolve_run
from megatron_patches.artefacts.inventory.renewal import TAGGED
from megatron_patches.artefacts.inventory.search import Wanted, find, metric_names
from tools.run_views.views import Inventory, RunRecord

_RUNS_SHOWN = 50


@dataclass(frozen=True)
class SearchQuery:
    """What `tools/inventory find` was asked."""

    terms: list[str]
    run: str
    family: str
    baseline: str
    wanted: Wanted

    @property
    def about_artefacts(self) -> bool:
        """Whether conditions were given that only an artefact can fulfil."""
        return replace(self.wanted, tag="") != Wanted()


@dataclass(frozen=True)
class SearchResult:
    """What fits."""

    runs: list[RunRecord]
    artefacts: list[Artefact]
    count: int
    """of all artefacts that fit, shown or not"""
    faulty: set[str]
    unknown: list[str]
    """where nothing fits, a sentence for each metric that nothing has"""


def search(inventory: Inventory, query: SearchQuery, limit: int) -> SearchResult:
    """Runs by their words, family, baseline and tag; artefacts of these runs, or by their own names, that fit.

    Raises:
        TrainyardError: a run is unknown or ambiguous, or a condition is not formed as it must be.
    """
    runs = _runs(inventory, query)
    wanted = query.wanted
    named = query.run or query.family or query.baseline or wanted.tag
    if query.terms and not runs and not named:
        wanted = replace(wanted, terms=query.terms)
    elif query.terms or named:
        wanted = replace(wanted, runs=runs)
    artefacts, count = find(inventory.catalogue, wanted, limit)
    shown = [] if query.about_artefacts or not (query.terms or named) else runs[:_RUNS_SHOWN]
    unknown = unknown_metrics(inventory.catalogue, metric_names(wanted)) if wanted.metrics and not count else []
    records = [inventory.record(name) for name in shown]
    return SearchResult(records, artefacts, count, faulty_ids(inventory.catalogue), unknown)


def _runs(inventory: Inventory, query: SearchQuery) -> list[str]:
    names = inventory.names()
    if query.run:
        names = [resolve_run(query.run, names)]
    if query.family:
        names = [name for name in names if name in inventory.files and _in_family(inventory, name, query.family)]
    if query.baseline:
        baseline = resolve_run(query.baseline, names if query.baseline in names else inventory.names())
        names = [name for name in names if inventory.baseline(name) == baseline]
    if query.wanted.tag:
        tagged = inventory.catalogue.rows(TAGGED, [query.wanted.tag])
        names = [name for name in names if (name,) in tagged]
    if not query.terms:
        return names
    return [name for name in names if all(term.lower() in inventory.texts(name) for term in query.terms)]


def _in_family(inventory: Inventory, name: str, family: str) -> bool:
    folder = inventory.files[name].parent.name
    return folder == family or folder.startswith(f"{family}-")
