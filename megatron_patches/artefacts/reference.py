"""`RUN@STEP`, `RUN@STEP/weights`, `RUN@gold`, `RUN@best` and `RUN@best:hellaswag.acc_norm`: how people name one
checkpoint of a run, on every command line. Torch-free."""

import re
from dataclasses import dataclass
from typing import Literal, cast

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import printable, shortened

_STEP = re.compile(r"([0-9]{1,10})(/weights)?")  # a folder's name has ten digits for a step

Chosen = Literal["gold", "best"]
"""a checkpoint by what is on record of it (chosen.py, and evaluations/best.py, say which it is)"""
_BY = "@best:"


@dataclass(frozen=True)
class CheckpointReference:
    """A reference taken apart."""

    run: str
    """name of a run, a part of one that no other has, or, where a command takes it, the path of a run's directory"""
    step: int | None
    """None where it is `chosen`"""
    weights_only: bool = False
    """the artefact of weights alone, where a step has one beside its full checkpoint"""
    chosen: Chosen | None = None
    by: str | None = None
    """name of the evaluation's metric by which it is the best, LABEL.METRIC; None: by its validation loss"""


def parse_reference(text: str) -> CheckpointReference | None:
    """The run and step that a text names; None where it has no @, so that it is a run, an id or a folder.

    Raises:
        TrainyardError: what stands before or behind @ is not formed as it must be.
    """
    run, found_by, by = text.partition(_BY)
    if found_by:  # a metric may be called pass@1
        return _best_by(run, by, text)
    run, at, rest = text.rpartition("@")
    if not at:
        return None
    if run and rest in ("gold", "best"):
        return CheckpointReference(run, None, chosen=cast("Chosen", rest))
    found = _STEP.fullmatch(rest)
    if not run or found is None:
        example = shortened(run, 80) or "RUN"
        raise TrainyardError(
            f"{shortened(text)}: before @ stands a run, behind it a step of at most ten digits: {example}@1000, or "
            f"{example}@1000/weights; or one of the words gold, best and best:TASK.METRIC"
        )
    return CheckpointReference(run, int(found[1]), found[2] is not None)


def _best_by(run: str, metric: str, text: str) -> CheckpointReference:
    if not run or "." not in metric.strip(".") or metric != metric.strip() or printable(metric) != metric:
        example = shortened(run, 80) or "RUN"
        raise TrainyardError(
            f"{shortened(text)}: before @ stands a run, behind best: a metric of an evaluation, with its task: "
            f"{example}@best:hellaswag.acc_norm"
        )
    return CheckpointReference(run, None, chosen="best", by=metric)
