"""What a heat map's differences are to: an evaluated step, or results that lm-eval's own command line wrote."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_patches.artefacts.evaluations.definitions import differences
from megatron_patches.artefacts.evaluations.result import Metric, TaskResult
from megatron_patches.errors import Damaged, Refused
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import number_of, parse_object, whole_of
from megatron_patches.foreign.printable import printable, shortened
from tools.evaluation_views.evaluated_step import find_evaluated_step

_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class BaseValue:
    """A metric of the base model."""

    metric: Metric
    examples: int | None


@dataclass(frozen=True)
class Base:
    """A model that others are compared with."""

    name: str
    results: Mapping[str, TaskResult] = field(default_factory=dict)
    """by label; of an evaluated step"""
    foreign: Mapping[str, Any] | None = None
    """the content of a results file of lm-eval"""
    notes: tuple[str, ...] = ()

    def value(self, result: TaskResult, part: str | None, metric: str) -> BaseValue | None:
        """The metric to which that of a result, or of its part, is compared; None where the base has none. The result
        is one for which `why_not` is empty.

        Raises:
            Refused: the file says that other items were asked, or with other shots.
        """
        if self.foreign is not None:
            return _foreign_value(self.foreign, self.name, result, part, metric)
        own = self.results[result.label]
        of = own if part is None else own.parts.get(part)
        return BaseValue(of.metrics[metric], of.examples) if of is not None and metric in of.metrics else None

    def why_not(self, result: TaskResult) -> str:
        """What makes a result another question than the base's of that label; empty where nothing is known to."""
        if self.foreign is not None:
            return ""
        own = self.results.get(result.label)
        if own is None:
            there = shortened(", ".join(sorted(self.results)), 200)
            return f"{self.name} has no result {result.label}; it has {there}"
        return "" if own.definition == result.definition else "; ".join(differences(own, result))


def read_base(text: str, invalid: bool) -> Base:
    """The base that a command line names: a JSON file, or an evaluated step as `find_evaluated_step` takes it.

    Args:
        invalid: an evaluation that is marked invalid may be it.

    Raises:
        Missing: there is no such file, run or evaluation.
        Damaged: it is not what was written.
        Refused: it is marked invalid, or was never sealed.
        TrainyardError: the reference is not formed as it must be.
    """
    if text.endswith(".json"):
        return _read_file(Path(text))
    step = find_evaluated_step(text, invalid)
    name = printable(step.name)
    notes = (f"{name}, the base, is marked invalid",) if step.evaluation.is_invalid else ()
    return Base(name, step.evaluation.results, notes=notes)


def _read_file(path: Path) -> Base:
    content = parse_object(read_bounded(path, _MOST_BYTES), printable(path))
    results = content.get("results")
    if not isinstance(results, dict) or not all(isinstance(each, dict) for each in results.values()):
        raise Damaged(f"{printable(path)} is no results file of lm-eval: it has no results by task")
    name = printable(path.name)
    note = (
        f"{name} does not say all that lm-eval asked: whether prompts and items were the same cannot be checked beyond "
        "shots and the number of items"
    )
    return Base(name, foreign=content, notes=(note,))


def _foreign_value(
    content: Mapping[str, Any], name: str, result: TaskResult, part: str | None, metric: str
) -> BaseValue | None:
    """lm-eval names a part TASK_PART, and a metric METRIC,FILTER."""
    task = next((each for each in _names(result.task, part) if each in content["results"]), None)
    if task is None:
        return None
    numbers = content["results"][task]
    word, _, filtered = metric.partition(".")
    ending = filtered or "none"
    value = number_of(numbers.get(f"{word},{ending}"))
    if value is None:
        return None
    examples = result.examples if part is None else result.parts[part].examples
    _check_asked(content, name, task, result.shots, examples)
    error = number_of(numbers.get(f"{word}_stderr,{ending}"))
    own = (result if part is None else result.parts[part]).metrics[metric]
    return BaseValue(Metric(value=value, standard_error=error, higher_is_better=own.higher_is_better), examples)


def _names(task: str, part: str | None) -> list[str]:
    return [task] if part is None else [f"{task}_{part}", f"{task.partition('_')[0]}_{part}", part]


def _check_asked(content: Mapping[str, Any], name: str, task: str, shots: int, examples: int) -> None:
    """Shots and items, where the file says them."""
    asked = content.get("n-shot")
    known = whole_of(asked.get(task)) if isinstance(asked, dict) else None
    if known is not None and known != shots:
        raise Refused(f"{name}: {printable(task)} was asked with {known} shots, here with {shots}: not the same task")
    sizes = content.get("n-samples")
    size = sizes.get(task) if isinstance(sizes, dict) else None
    known = whole_of(size.get("effective")) if isinstance(size, dict) else None
    if known is not None and known != examples:
        raise Refused(f"{name}: {printable(task)} has {known:,} items, here {examples:,}: not the same task")
