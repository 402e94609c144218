"""Which tasks and metrics are shown: those that were asked for, else one metric of each task."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from megatron_patches.artefacts.evaluations.primary_metric import primary_metric
from megatron_patches.errors import Missing, TrainyardError
from megatron_patches.foreign.printable import printable, shortened
from tools.evaluation_views.gathered import Gathered


def words_of(texts: Iterable[str]) -> list[str]:
    """What an option says that may be repeated, and may have commas.

    Raises:
        TrainyardError: there is nothing between two commas.
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    if not all(words):
        raise TrainyardError("a name is empty: leave out the comma that is too many")
    return list(dict.fromkeys(words))


def only_tasks(gathered: Gathered, words: Sequence[str]) -> Gathered:
    """The same with the labels that are named, by themselves or by their task, alone; without words all of them.

    Raises:
        Missing: nothing is called so; the nearest name is offered, and what was left out is told.
    """
    if not words:
        return gathered
    tasks = {each.result.label: each.result.task for each in gathered.found}
    known = {label: {label, tasks.get(label, label)} for label in gathered.labels}
    for word in words:
        if not any(word in names for names in known.values()):
            unknown = _unknown("result of a task", word, sorted(set().union(*known.values())))
            raise Missing("\n".join([unknown, *gathered.notes]))
    labels = {label for label, names in known.items() if names & set(words)}
    return replace(
        gathered,
        found=tuple(each for each in gathered.found if each.result.label in labels),
        unfinished=tuple(each for each in gathered.unfinished if each.state.label in labels),
    )


def metrics_of(gathered: Gathered, words: Sequence[str], every: bool = False) -> dict[str, list[str]]:
    """The metrics to show of each label: those that are named (METRIC or LABEL.METRIC), every one, or the primary one.

    Raises:
        Missing: no result has a metric of a name.
    """
    known: dict[str, list[str]] = {label: [] for label in gathered.labels}
    for each in gathered.found:
        names = known[each.result.label]
        names += [name for name in sorted(each.result.metrics) if name not in names]
    for word in words:
        if not any(word in (name, f"{label}.{name}") for label, names in known.items() for name in names):
            raise Missing(_unknown("metric", word, sorted({name for names in known.values() for name in names})))
    if words:
        asked = {
            label: [name for name in names if {name, f"{label}.{name}"} & set(words)] for label, names in known.items()
        }
        return {label: names for label, names in asked.items() if names}
    if every:
        return known
    chosen = {label: primary_metric(names) for label, names in known.items()}
    return {label: [] if name is None else [name] for label, name in chosen.items()}


def _unknown(kind: str, word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.3)
    offer = f"nearest: {printable(near[0])}; " if near else ""
    return f"there is no {kind} {shortened(word, 80)}; {offer}there are: {shortened(', '.join(known), 400) or 'none'}"
