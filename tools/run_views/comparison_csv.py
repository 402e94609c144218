"""Histories of several runs as CSV: one row a run and step, each validation source in its own column."""

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np

from megatron_patches.artefacts.chosen import UNNAMED_GROUP
from tools.run_views.comparison import METRICS
from tools.run_views.history import History

_MEASURED = [(metric.name, metric.column) for metric in METRICS if metric.column is not None]


def as_csv(histories: Sequence[History], labels: Sequence[str]) -> str:
    """The text of the file; `nan` is a loss that is no number, or a number that steps do not have."""
    sources = list(dict.fromkeys(source for history in histories for source in history.validations))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    # validation_loss where the source has its usual name; one named training is no other column
    losses = ["validation_loss" if source == UNNAMED_GROUP else f"validation_loss.{source}" for source in sources]
    writer.writerow(["run", "step", "tokens", *(name for name, _ in _MEASURED), *losses])
    for history, label in zip(histories, labels, strict=True):
        writer.writerows([label, *row] for row in _rows(history, sources))
    return text.getvalue()


def _rows(history: History, sources: Sequence[str]) -> Iterator[list[object]]:
    """By step; also of steps that were validated and never trained, such as the weights before the first."""
    steps, numbers = history.steps.steps, history.steps.numbers
    losses = {
        source: dict(zip(found.steps.tolist(), found.losses.tolist(), strict=True))
        for source, found in history.validations.items()
    }
    tokens = {
        step: consumed
        for found in history.validations.values()
        for step, consumed in zip(found.steps.tolist(), found.tokens.tolist(), strict=True)
    }
    columns = [numbers["tokens"].tolist(), *(numbers[column].tolist() for _, column in _MEASURED if column)]
    trained = dict(zip(steps.tolist(), zip(*columns, strict=True), strict=True))
    nothing = [None] * len(_MEASURED)
    for step in np.union1d(steps, np.array(list(tokens), dtype=np.int64)).tolist():
        consumed, *values = trained.get(step, (tokens.get(step, float("nan")), *nothing))
        validated = [losses[source].get(step) if source in losses else None for source in sources]
        yield [step, int(consumed) if np.isfinite(consumed) else None, *values, *validated]
