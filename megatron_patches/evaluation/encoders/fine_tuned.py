"""Tasks on which a copy of an encoder is fine-tuned: what it then says of the texts that are asked, as a result."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from megatron_patches.artefacts.evaluations.result import Item, Metric, Part
from megatron_patches.errors import Damaged, Refused
from megatron_patches.evaluation.encoders.item_ids import item_ids
from megatron_patches.evaluation.encoders.learning import Rows, learn_and_ask
from megatron_patches.evaluation.encoders.pairs import encode_pairs
from megatron_patches.evaluation.encoders.scores import LOWER_IS_BETTER, MEANS, METRICS, Numbers
from megatron_patches.evaluation.encoders.text_ends import ends_of_pairs
from megatron_patches.evaluation.encoders.trunk import Trunk, load_trunk
from megatron_patches.evaluation.tasks.encoder_tasks import FineTuningTask
from megatron_patches.evaluation.tasks.formats.glue_files import Labelled
from megatron_patches.evaluation.tasks.outcome import Outcome
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.sizes import counted
from megatron_patches.torch_patches.eager_optimizers import run_optimizers_eagerly

SPREAD = "_spread"
"""ending of a metric's standard deviation over seeds"""


def fine_tuned(folder: Path, task: FineTuningTask, groups: ProcessGroups, hear: Callable[[str], None]) -> Outcome:
    """Fine-tunes a copy of a checkpoint's encoder from each seed, and asks it. What it is asked decides nothing of how
    long it learns: the numbers are those after the last epoch.

    Raises:
        Refused: the tokenizer lacks a token that it needs, or the length has no room for a pair.
        Damaged: the loss, or what is said of an item, is no number.
        TrainyardError: as `load_trunk`.
    """
    started = perf_counter()
    run_optimizers_eagerly()
    trunk = load_trunk(folder, task.settings.length, groups)
    settings, rows = task.fine_tuning, task.source
    hear(f"{task.label}: learning from {counted(len(rows.train), 'item')}")
    train, asked = (_encoded(trunk, each, task) for each in (rows.train, rows.asked))
    labels = torch.tensor([row.label for row in rows.train], dtype=torch.float32)
    outputs = 1 if task.format.is_score else len(task.format.labels)
    said = learn_and_ask(trunk, Rows(train, labels), asked, outputs, settings)
    predicted = [predictions(each, outputs) for each in said]
    parts = dict.fromkeys(row.part for row in rows.asked if row.part is not None)
    return Outcome(
        task=task,
        through="engine",
        version=task.version,
        definition=task.definition,
        shots=0,
        examples=len(rows.asked),
        metrics=metrics(task.format.metrics, predicted, rows.asked),
        seconds=perf_counter() - started,
        parts={part: _part(task, predicted, part) for part in parts},
        items=list(_items(task, predicted)),
        data=rows.data,
        versions={"torch": torch.__version__},
        precision="fp32",
    )


def _encoded(trunk: Trunk, rows: Sequence[Labelled], task: FineTuningTask) -> list[list[int]]:
    if task.fine_tuning.pooling == "cls" and trunk.special.cls is None:
        raise Refused(
            f"tokenizer {trunk.tokenizer.name} has no cls token, whose output would stand for a text; average over all "
            "tokens: --pooling mean"
        )
    ends = ends_of_pairs(trunk.special, trunk.tokenizer.end_of_document)
    return encode_pairs([row.texts for row in rows], trunk.tokenizer, ends, trunk.window)


def predictions(said: torch.Tensor, outputs: int) -> Numbers:
    """The likeliest label of each text, or its score, of `[texts, outputs]`.

    Raises:
        Damaged: a number is NaN or infinite, which would have a likeliest label too.
    """
    if not torch.isfinite(said).all():
        raise Damaged(
            "what the fine-tuned encoder says of the items that are asked is no number; lower --learning-rate, or name "
            "an earlier checkpoint"
        )
    chosen = said[:, 0] if outputs == 1 else said.argmax(1)
    return chosen.double().numpy()


def metrics(names: Sequence[str], predicted: Sequence[Numbers], rows: Sequence[Labelled]) -> Mapping[str, Metric]:
    """Each metric as its mean over seeds, and, of several seeds, its standard deviation.

    The standard error is that of a mean over items, whose number is that of all seeds; correlations and F1 have none.

    Args:
        predicted: of each seed.
    """
    labels = np.array([row.label for row in rows])
    found = dict[str, Metric]()
    for name in names:
        values = [METRICS[name](each, labels) for each in predicted]
        better = name not in LOWER_IS_BETTER
        error = _standard_error(item_values(name, predicted, labels)) if name in MEANS else None
        found[name] = Metric(
            value=float(np.mean(values)), standard_error=error, higher_is_better=better, chance=_chance(name, labels)
        )
        if len(values) > 1:
            found[f"{name}{SPREAD}"] = Metric(value=float(np.std(values, ddof=1)), higher_is_better=False)
    return found


def item_values(name: str, predicted: Sequence[Numbers], labels: Numbers) -> Numbers:
    """Each item's part in a metric that is a mean over items, averaged over seeds."""
    each = [(given == labels) if name == "acc" else (given - labels) ** 2 for given in predicted]
    return np.mean(np.stack(each).astype(np.float64), axis=0)


def _standard_error(values: Numbers) -> float | None:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def _chance(name: str, labels: Numbers) -> float | None:
    """What a model scores that always says the commonest label, or the mean score."""
    if name == "acc":
        return float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    if name == "squared_error":
        return float(labels.var())
    return None if name == "f1" else 0.0


def _part(task: FineTuningTask, predicted: Sequence[Numbers], part: str) -> Part:
    here = [number for number, row in enumerate(task.source.asked) if row.part == part]
    found = metrics(task.format.metrics, [each[here] for each in predicted], [task.source.asked[n] for n in here])
    return Part(examples=len(here), metrics=dict(found))


def _items(task: FineTuningTask, predicted: Sequence[Numbers]) -> Iterator[Item]:
    rows = task.source.asked
    labels = np.array([row.label for row in rows])
    kept = {name: item_values(name, predicted, labels) for name in task.format.metrics if name in MEANS}
    ids = item_ids("\0".join([row.part or "", *row.texts]) for row in rows)
    for number, (id, row) in enumerate(zip(ids, rows, strict=True)):
        yield Item(
            id=id,
            part=row.part,
            metrics={name: float(values[number]) for name, values in kept.items()},
            answer=", ".join(dict.fromkeys(_shown(task, each[number]) for each in predicted)),
            target=_shown(task, row.label),
        )


def _shown(task: FineTuningTask, value: float) -> str:
    return f"{value:.4g}" if task.format.is_score else task.format.labels[int(value)]
