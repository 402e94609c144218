"""What a model scored on one task: `evals/step-.../LABEL.json`, and each item's own scores beside it. Torch-free."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from megatron_patches.errors import Damaged
from megatron_patches.foreign.files import read_bounded
from megatron_patches.foreign.json_text import parse_json, parse_object
from megatron_patches.foreign.names import is_name
from megatron_patches.foreign.printable import printable, shortened

RESULT_ENDING = ".json"
ITEMS_ENDING = ".items.jsonl"
_MOST_BYTES = 1 << 30
Through = Literal["export", "engine"]
"""what gave the numbers: transformers with the run's export, or the run's own layers"""
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Metric(_Record):
    """One number of a task."""

    value: float
    standard_error: float | None = None
    """None where the task has none, or a single item."""
    higher_is_better: bool = True
    chance: float | None = None
    """What a guess scores; None where that is not known."""


class DataFile(_Record):
    """A file that a task's items come from."""

    name: str
    """As it was given: a path; or a task's own dataset, as the harness names it."""
    sha256: _Hash | None = None
    """None where the harness loaded it."""
    rows: int | None = Field(default=None, ge=0)


class Part(_Record):
    """A division of a task, such as a subject, a kind of question or a validation group."""

    examples: int = Field(ge=0)
    metrics: dict[str, Metric]


class TaskResult(_Record):
    """The numbers of one task at one checkpoint, and all that one must know to compare them with others."""

    format: Literal[1] = 1
    task: str
    """The task's name. `label` adds what a command line changed of it."""
    label: Annotated[str, Field(max_length=200)]
    """Name of the result's file and of its metrics: the task's, then each of 5-shot, limit-100 and length-4096 that was
    asked for, after a dot."""
    version: str
    """As the task states it."""
    definition: _Hash
    """Of everything but the model that decides the numbers: prompts, metrics, data, shots, length. Results of two
    definitions are never compared."""
    data: list[DataFile] = []
    shots: int = Field(ge=0)
    fine_tuning: dict[str, bool | int | float | str] | None = None
    """How a copy of the model was fine-tuned on the task; None where nothing was."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many of the items were asked, of each part; None means all."""
    examples: int = Field(ge=1)
    """Items that were asked; of a loss, tokens that were predicted."""
    length: int | None = Field(default=None, ge=1)
    """Most tokens that the model saw at once, where it was not the length of its training."""
    through: Through
    run: str
    step: int = Field(ge=0)
    tokens: int | None = Field(default=None, ge=0)
    """That the model was trained on by then."""
    checkpoint: str
    """Id of the checkpoint's manifest."""
    versions: dict[str, str] = {}
    """Of the libraries that computed: lm-eval, transformers, torch."""
    precision: str | None = None
    """In which the model computed: fp32, bf16, fp16."""
    seconds: float = Field(ge=0)
    date: str
    """UTC, ISO 8601."""
    metrics: dict[str, Metric]
    parts: dict[str, Part] = {}


class Item(_Record):
    """What a model scored on one item of a task."""

    id: str
    """The same for the same item, whatever the model: a hash of it."""
    part: str | None = None
    cluster: str | None = None
    """Items of one cluster are alike (one subject, one source), and tell less than as many independent ones."""
    metrics: dict[str, float]
    answer: str | None = None
    """What the model wrote, or chose."""
    target: str | None = None


_Checked = TypeVar("_Checked", TaskResult, Item)


def label_of(task: str, shots: int | None, limit: int | None, length: int | None) -> str:
    """A result's name: the task, and what was asked for of it; None is what the task says itself."""
    endings = ((shots, "{}-shot"), (limit, "limit-{}"), (length, "length-{}"))
    return ".".join([task, *(ending.format(value) for value, ending in endings if value is not None)])


def is_label(text: str) -> bool:
    """Whether it can name a file on the shelf, and be told from a manifest."""
    return is_name(text) and text != "manifest" and not text.endswith(".items")


def metrics_of(result: TaskResult) -> dict[str, Metric]:
    """All numbers of a result by their full names: LABEL.METRIC, and LABEL.PART.METRIC of its parts."""
    found = {
        f"{result.label}.{part}.{name}": metric
        for part, numbers in result.parts.items()
        for name, metric in numbers.metrics.items()
    }
    return found | {f"{result.label}.{name}": metric for name, metric in result.metrics.items()}


def result_bytes(result: TaskResult) -> bytes:
    """What its file holds."""
    return (json.dumps(result.model_dump(exclude_none=True), indent=1, ensure_ascii=False) + "\n").encode()


def items_bytes(items: Iterable[Item]) -> bytes:
    """A line for each."""
    lines = [json.dumps(each.model_dump(exclude_none=True), ensure_ascii=False) for each in items]
    return "".join(f"{line}\n" for line in lines).encode()


def read_result(path: Path, step: int | None = None) -> TaskResult:
    """Reads a result.

    Args:
        step: of the evaluation that it lies in; None where that is not known.

    Raises:
        Missing: there is none.
        Damaged: it is none, has another name than its label's, or is of another step.
    """
    origin = printable(path)
    result = _checked(TaskResult, parse_object(read_bounded(path, _MOST_BYTES), origin), origin)
    if path.name != result.label + RESULT_ENDING or not is_label(result.label):
        raise Damaged(f"{origin} holds the result {shortened(result.label)}: give the file its own name back")
    if step not in (None, result.step):
        raise Damaged(f"{origin} is of step {result.step:,}: move it to the evaluation of that step, or remove it")
    return result


def read_items(path: Path) -> list[Item]:
    """Reads each item's scores.

    Raises:
        Missing: there are none.
        Damaged: a line is no item.
    """
    *lines, rest = read_bounded(path, _MOST_BYTES).split(b"\n")
    if rest:  # it was written whole, so this is damage
        lines.append(rest)
    return [
        _checked(Item, parse_json(line, where), where)
        for number, line in enumerate(lines, 1)
        for where in [f"{printable(path)}, line {number}"]
    ]


def _checked(kind: type[_Checked], content: Any, origin: str) -> _Checked:
    try:
        return kind.model_validate(content)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "nested too deeply"}
        said = f"{shortened('.'.join(map(str, first['loc'])))}: {shortened(str(first['msg']))}"
        raise Damaged(f"{origin} is no result of an evaluation ({said}); evaluate again") from None
