"""A question to the inventory: which runs its words mean, and which artefacts fit."""

from dataclasses import dataclass, replace

from megatron_patches.artefacts.inventory.artefact import Artefact
from megatron_patches.artefacts.inventory.lineage import faulty_ids
from megatron_patches.artefacts.inventory.names import resolve_run
from megatron_patches.artefacts.inventory.search import Wanted, find
from tools.run_views.views import RunView, Yard

_RUNS_SHOWN = 50


@dataclass(frozen=True)
class Question:
    """What `tools/inventory find` was asked."""

    words: list[str]
    run: str
    family: str
    baseline: str
    wanted: Wanted

    @property
    def about_artefacts(self) -> bool:
        """Whether conditions were given that only an artefact can fulfil."""
        return replace(self.wanted, tag="") != Wanted()


@dataclass(frozen=True)
class Answer:
    """What fits."""

    runs: list[RunView]
    artefacts: list[Artefact]
    count: int
    """of all artefacts that fit, shown or not"""
    faulty: set[str]


def search(yard: Yard, question: Question, limit: int) -> Answer:
    """Runs by their words, family, baseline and tag; artefacts of these runs, or by their own names, that fit.

    Raises:
        TrainyardError: a run is unknown or ambiguous, or a condition is not formed as it must be.
    """
    runs = _runs(yard, question)
    wanted = question.wanted
    named = question.run or question.family or question.baseline or wanted.tag
    if question.words and not runs and not named:
        wanted = replace(wanted, words=question.words)
    elif question.words or named:
        wanted = replace(wanted, runs=runs)
    artefacts, count = find(yard.catalogue, wanted, limit)
    shown = [] if question.about_artefacts or not (question.words or named) else runs[:_RUNS_SHOWN]
    return Answer([yard.view(name) for name in shown], artefacts, count, faulty_ids(yard.catalogue))


def _runs(yard: Yard, question: Question) -> list[str]:
    names = yard.names()
    if question.run:
        names = [resolve_run(question.run, names)]
    if question.family:
        names = [name for name in names if name in yard.files and _in_family(yard, name, question.family)]
    if question.baseline:
        baseline = resolve_run(question.baseline, names if question.baseline in names else yard.names())
        names = [name for name in names if yard.baseline(name) == baseline]
    if question.wanted.tag:
        tagged = yard.catalogue.rows("SELECT run FROM words WHERE word = 'tag' AND text = ?", [question.wanted.tag])
        names = [name for name in names if (name,) in tagged]
    if not question.words:
        return names
    return [name for name in names if all(word.lower() in yard.texts(name) for word in question.words)]


def _in_family(yard: Yard, name: str, family: str) -> bool:
    folder = yard.files[name].parent.name
    return folder == family or folder.startswith(f"{family}-")
