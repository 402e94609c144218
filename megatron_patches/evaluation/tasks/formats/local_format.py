"""What a local format says of itself, and what is read of its files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from megatron_patches.artefacts.evaluations.result import DataFile

Document = Mapping[str, Any]
"""one item as lm-eval gets it: its fields are what the configuration asks for"""
PART, CLUSTER = "part", "cluster"
"""fields of a document: of which part it is, and with which other items it is alike"""


class Source(NamedTuple):
    """What a command line names after a format's word."""

    path: Path | None
    examples: Path | None = None
    """file of solved items, for `--shots`"""


@dataclass(frozen=True)
class Questions:
    """The items of a task, or of one of its members."""

    documents: Sequence[Document]
    examples: Sequence[Document] = ()
    """solved items, of which the first ones are shown in front of each question"""
    description: str = ""
    """what stands in front of everything else"""


@dataclass(frozen=True)
class ReadSource:
    """All that was read for a task, and checked."""

    questions: Questions | Mapping[str, Questions]
    """by member where the task is a group"""
    data: tuple[DataFile, ...] = ()
    chance: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalFormat:
    """A way to write a task's items down, and what is made of them."""

    word: str
    version: str
    """raised whenever the same files would give a model other numbers"""
    source: str | None
    """how people name its files; None where it has none"""
    row: str
    """keys of a row, and what else its files may be"""
    manner: str
    """how it is asked and scored: whose numbers these are"""
    example: str
    """one row, as it stands in a file"""
    metrics: Sequence[str]
    asked: Mapping[str, Any]
    """the configuration for lm-eval, but for names, documents and shots"""
    read: Callable[[Source], ReadSource]
    """Raises TrainyardError: a file is not as the format says."""
    takes_shots: bool = False
    by_token: bool = False
    """see `HarnessTask`"""


def chance_of_choices(counts: Sequence[int], metrics: Sequence[str]) -> dict[str, float]:
    """What a guess scores on choices of so many endings each."""
    guess = sum(1 / count for count in counts) / len(counts)
    return dict.fromkeys(metrics, guess)
