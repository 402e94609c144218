"""`RUN@STEP`, `RUN@STEP/weights`, `RUN@gold` and `RUN@best`: how people name one checkpoint of a run, on every command
line. Torch-free."""

import re
from dataclasses import dataclass
from typing import Literal, cast

from megatron_patches.errors import TrainyardError
from megatron_patches.foreign.printable import shortened

_STEP = re.compile(r"([0-9]{1,10})(/weights)?")  # a folder's name has ten digits for a step

Chosen = Literal["gold", "best"]
"""a checkpoint by what is on record of it (chosen.py says which it is)"""


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


def parse_reference(text: str) -> CheckpointReference | None:
    """The run and step that a text names; None where it has no @, so that it is a run, an id or a folder.

    Raises:
        TrainyardError: what stands before or behind @ is not formed as it must be.
    """
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
            f"{example}@1000/weights; or one of the words gold and best"
        )
    return CheckpointReference(run, int(found[1]), found[2] is not None)
