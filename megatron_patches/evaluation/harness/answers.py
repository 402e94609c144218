"""What a model answered to each item of a task: lm-eval's samples, one for each filter, joined to one item."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from numbers import Real
from typing import Any

import numpy as np
from lm_eval.api.metrics import perplexity
from lm_eval.api.task import Task

from megatron_patches.artefacts.evaluations.result import Item
from megatron_patches.errors import Damaged
from megatron_patches.evaluation.tasks.task import HarnessTask

BY_TOKEN = "acc_norm_token"
LOG_LIKELIHOOD = "log_likelihood"
"""of an item, in nats, where the task's own number is a perplexity"""
_ID_LENGTH = 16
Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Answered:
    """One item, and what its sample holds beside it."""

    item: Item
    document: Mapping[str, Any]
    samples: Sequence[Sample]
    """one for each filter"""
    choices: int | None
    """endings to choose among; None where there is no choice, or more than one is right"""


def shown_name(metric: str, filter: str) -> str:
    """A metric's name here; lm-eval's is `metric,filter`."""
    return metric if filter == "none" else f"{metric}.{filter}"


def is_number(value: object) -> bool:
    """Whether it can be an item's score: finite, and no pair or text."""
    return isinstance(value, Real | np.bool_) and math.isfinite(value)


def answered(
    task: HarnessTask, of: Task, part: str | None, samples: Sequence[Sample], numbers: Mapping[str, Any], model: Any
) -> list[Answered]:
    """The items of one task of lm-eval, in their order.

    Args:
        of: the task of lm-eval, or the member of a group.
        part: the member's name; None of a task without members.
        numbers: lm-eval's of this task, by `metric,filter`.
        model: that was asked; it knows how texts become tokens.

    Raises:
        Damaged: a log-likelihood is no number.
    """
    ordered = sorted(samples, key=lambda each: each["doc_id"])
    items = [list(group) for _, group in groupby(ordered, key=lambda each: each["doc_id"])]
    ids = _ids(part, (each[0]["doc_hash"] for each in items))
    means = _means(samples, numbers)
    return [_answered(task, of, part, id, each, means, model) for id, each in zip(ids, items, strict=True)]


def _ids(part: str | None, hashes: Iterable[str]) -> Iterator[str]:
    """Of equal documents each has its own, by their order: the same for every model."""
    seen: dict[str, int] = {}
    for each in hashes:
        whole = each if part is None else sha256(f"{part}:{each}".encode()).hexdigest()
        seen[whole] = seen.get(whole, 0) + 1
        yield whole[:_ID_LENGTH] + (f"-{seen[whole]}" if seen[whole] > 1 else "")


def _means(samples: Sequence[Sample], numbers: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Metric and filter where the task's number is the mean of its items': only there an item has one of that name."""
    values: dict[tuple[str, str], list[Any]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            values.setdefault((metric, sample["filter"]), []).append(sample[metric])
    return {
        key
        for key, given in values.items()
        if all(map(is_number, given)) and math.isclose(np.mean(given), numbers.get(",".join(key), math.nan))
    }


def _answered(
    task: HarnessTask,
    of: Task,
    part: str | None,
    id: str,
    samples: Sequence[Sample],
    means: set[tuple[str, str]],
    model: Any,
) -> Answered:
    first, document = samples[0], samples[0]["doc"]
    metrics: dict[str, float] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            if (metric, sample["filter"]) in means:
                metrics[shown_name(metric, sample["filter"])] = float(sample[metric])
            elif of.aggregation().get(metric) is perplexity and is_number(sample[metric]):
                metrics[LOG_LIKELIHOOD] = float(sample[metric])
    answer: str | None = None
    target: str | None = _written(first["target"])
    choices: int | None = None
    if of.OUTPUT_TYPE == "multiple_choice":
        likelihoods, right = _likelihoods(first), _right(of, document)
        answer = str(int(np.argmax(likelihoods)))
        choices = len(likelihoods) if isinstance(right, int) else None
        target = _written(right)
        if task.by_token:
            best = int(np.argmax(np.array(likelihoods) / _tokens_of_endings(first, len(likelihoods), model)))
            metrics[BY_TOKEN] = float(best in right if isinstance(right, list) else best == right)
    elif of.OUTPUT_TYPE == "loglikelihood_rolling":
        metrics |= _of_text(first, model)
        target = None  # the text itself
    elif of.OUTPUT_TYPE == "generate_until":
        answer = str(first["resps"][0][0])
    else:
        _likelihoods(first)
    item = Item(
        id=id,
        part=part if part is not None else task.part_of(document),
        cluster=task.cluster_of(document),
        metrics=metrics,
        answer=answer,
        target=target,
    )
    return Answered(item, document, samples, choices)


def _likelihoods(sample: Sample) -> list[float]:
    """Log-likelihoods of the endings, in nats; without those that `acc_mutual_info` asks for beside."""
    found = [float(each[0]) for each in sample["filtered_resps"]]
    _refuse_what_is_no_number(found)
    return found[: len(found) // 2] if "acc_mutual_info" in sample["metrics"] else found


def _refuse_what_is_no_number(found: Sequence[float]) -> None:
    if any(map(math.isnan, found)):
        raise Damaged("the model's log-likelihoods are no numbers: its training diverged; name an earlier checkpoint")


def _right(of: Task, document: Mapping[str, Any]) -> int | list[int] | None:
    """Number of the right ending, as lm-eval finds it; None where the item has none."""
    right = of.doc_to_text(document) if of.multiple_input else of.doc_to_target(document)
    if isinstance(right, str):
        choices = of.doc_to_choice(document)
        return choices.index(right) if right in choices else None
    return right if isinstance(right, list) else int(right)


def _tokens_of_endings(sample: Sample, count: int, model: Any) -> Any:
    """Tokens of each ending, as the model was asked: float64 `[endings]`."""
    return np.array([len(_ending_ids(model, *each[:2])) for each in sample["arguments"][:count]], dtype=np.float64)


def _ending_ids(model: Any, context: str, ending: str) -> Sequence[int]:
    if context:
        return model._encode_pair(context, ending)[1]
    ids: Sequence[int] = model.tok_encode(ending, add_special_tokens=False)
    return ids[1:] if ids[0] == model.prefix_token_id else ids


def _of_text(sample: Sample, model: Any) -> dict[str, float]:
    """Of a text whose every token was predicted."""
    likelihood = float(sample["filtered_resps"][0])
    _refuse_what_is_no_number([likelihood])
    text = str(sample["arguments"][0][0])
    size = len(text.encode())
    found = {LOG_LIKELIHOOD: likelihood, "bytes": float(size), "tokens": float(len(model.tok_encode(text)))}
    if size:
        found["bits_per_byte"] = -likelihood / size / math.log(2)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
