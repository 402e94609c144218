"""Metrics, parts and items out of what lm-eval returns of a task."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lm_eval.api.metrics import mean, mean_stderr

from megatron_patches.artefacts.evaluations.result import Item, Metric, Part
from megatron_patches.evaluation.harness.answers import (
    BY_TOKEN,
    LOG_LIKELIHOOD,
    Answered,
    answered,
    is_number,
    shown_name,
)
from megatron_patches.evaluation.harness.loaded_task import LoadedTask
from megatron_patches.evaluation.tasks.task import HarnessTask

PERPLEXITY = "perplexity"
"""of a text: exp of the mean negative log-likelihood of its tokens"""
_OF_CHOICE = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", BY_TOKEN)
_ERROR = "_stderr"


@dataclass
class Measured:
    """What is known of a task's answers."""

    metrics: dict[str, Metric] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)


def measured(
    task: HarnessTask, loaded: LoadedTask, results: Mapping[str, Any], model: Any, hear: Callable[[str], None]
) -> Measured:
    """Everything that a result says of its numbers.

    Args:
        results: of `lm_eval.evaluator.evaluate`, with its samples.
        hear: told of numbers that are not finite, which are left out.

    Raises:
        Damaged: a log-likelihood is no number.
    """
    found, all_answers = Measured(), list[Answered]()
    parts = loaded.parts if loaded.is_divided else {loaded.name: None}
    for name, part in parts.items():
        numbers = results["results"][name]
        answers = answered(task, loaded.tasks[name], part, results["samples"][name], numbers, model)
        metrics = _metrics(task, numbers, results["higher_is_better"].get(name) or {}, answers, hear)
        if part is None:
            found.metrics = metrics
            found.parts = _parts_of_items(task, loaded, answers, metrics, hear)
        else:
            found.parts[part] = Part(examples=len(answers), metrics=metrics)
        all_answers += answers
    if loaded.is_divided and loaded.name in results["results"]:
        of_whole = results["results"][loaded.name], results["higher_is_better"].get(loaded.name) or {}
        found.metrics = _metrics(task, *of_whole, all_answers, hear)
    found.items = [each.item for each in all_answers]
    return found


def _metrics(
    task: HarnessTask,
    numbers: Mapping[str, Any],
    directions: Mapping[str, bool | None],
    answers: Sequence[Answered],
    hear: Callable[[str], None],
) -> dict[str, Metric]:
    """lm-eval's numbers of a task, a member or a group, and those that it does not compute."""
    chance = _chance(answers)
    found: dict[str, Metric] = {}
    for key, value in numbers.items():
        metric, comma, filter = key.partition(",")
        if not comma or metric.endswith(_ERROR):
            continue
        name = shown_name(metric, filter)
        if not is_number(value):
            hear(f"{task.label}: {name} is {value}, which is no finite number; it is left out")
            continue
        error: Any = numbers.get(f"{metric}{_ERROR},{filter}")
        found[name] = Metric(
            value=float(value),
            standard_error=float(error) if is_number(error) else None,
            higher_is_better=directions.get(metric) is not False,
            chance=task.chance.get(name, task.chance.get(metric, chance if metric in _OF_CHOICE else None)),
        )
    if by_token := _values(answers, BY_TOKEN):
        found[BY_TOKEN] = _mean(by_token, task.chance.get(BY_TOKEN, chance))
    if tokens := sum(_values(answers, "tokens")):
        found |= _perplexity(sum(_values(answers, LOG_LIKELIHOOD)), tokens, task, hear)
    return found


def _chance(answers: Sequence[Answered]) -> float | None:
    """What a guess scores, where every item is a choice."""
    counts = [each.choices for each in answers]
    known = [count for count in counts if count]
    return sum(1 / count for count in known) / len(known) if known and len(known) == len(counts) else None


def _values(answers: Iterable[Answered], metric: str) -> list[float]:
    return [each.item.metrics[metric] for each in answers if metric in each.item.metrics]


def _mean(values: Sequence[float], chance: float | None) -> Metric:
    error = mean_stderr(values) if len(values) > 1 else None
    return Metric(value=mean(values), standard_error=error, chance=chance)


def _perplexity(likelihood: float, tokens: float, task: HarnessTask, hear: Callable[[str], None]) -> dict[str, Metric]:
    """Of all texts together, by tokens."""
    try:
        value = math.exp(-likelihood / tokens)
    except OverflowError:
        hear(f"{task.label}: {PERPLEXITY} is too large for a number; it is left out")
        return {}
    return {PERPLEXITY: Metric(value=value, higher_is_better=False)}


def _parts_of_items(
    task: HarnessTask,
    loaded: LoadedTask,
    answers: Sequence[Answered],
    whole: Mapping[str, Metric],
    hear: Callable[[str], None],
) -> dict[str, Part]:
    """Parts that the harness knows nothing of: its own functions make their numbers, of their items alone."""
    by_part: dict[str, list[Answered]] = {}
    for each in answers:
        if each.item.part is not None:
            by_part.setdefault(each.item.part, []).append(each)
    functions = loaded.tasks[loaded.name].aggregation()
    directions = {name: metric.higher_is_better for name, metric in whole.items()}
    return {
        part: Part(examples=len(some), metrics=_metrics(task, _numbers(functions, some), directions, some, hear))
        for part, some in by_part.items()
    }


def _numbers(functions: Mapping[str, Callable[[Any], Any]], answers: Sequence[Answered]) -> dict[str, Any]:
    """As lm-eval has them, of some of the items; a standard error has only a mean."""
    values: dict[tuple[str, str], list[Any]] = {}
    for sample in (sample for each in answers for sample in each.samples):
        for metric in sample["metrics"]:
            values.setdefault((metric, sample["filter"]), []).append(sample[metric])
    found: dict[str, Any] = {}
    for (metric, filter), given in values.items():
        function = functions.get(metric, mean)
        found[f"{metric},{filter}"] = function(given)
        if function is mean and len(given) > 1:
            found[f"{metric}{_ERROR},{filter}"] = mean_stderr(given)
    return found
