"""How far a run is."""

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Outcome(Enum):
    """How a launch ended."""

    FINISHED = "finished"
    STOPPED = "stopped"


@dataclass
class Progress:
    """What was consumed since the run's first step; the data position is `samples` and nothing else."""

    step: int = 0
    samples: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class StepRecord:
    """The numbers of one step, read from the device one step later."""

    step: int
    samples: int
    tokens: int
    batch_size: int
    """samples of the step"""
    loss: float
    """nats per target"""
    learning_rate: float
    grad_norm: float
    """before clipping"""
    seconds: float
    tokens_per_second: float
    """of all places that the model computes, padding among them"""
    tflops_per_process: float
    loss_scale: float | None = None
    """by what the step's losses were multiplied, in fp16; None otherwise"""
    memory_bytes: int | None = None
    """of this rank: what was reserved on its GPU at most since the start, or what its process holds on a CPU"""
    delivered: str | None = None
    """hash of the samples that readers delivered to all ranks (data_tools/samples/delivered.py)"""
    data_wait_seconds: float | None = None
    """that a data-parallel rank waited for samples at most, with nothing for its device to do; part of `seconds`"""
    padding: float | None = None
    """share of the places of the global batch that hold no text"""
    text_tokens_per_second: float | None = None
    """`tokens_per_second` without padding"""


@dataclass(frozen=True)
class ValidationRecord:
    """One validation on one group of samples."""

    step: int
    samples: int
    tokens: int
    source: str
    """name of the group"""
    loss: float
    """nats per target, over `validation_samples`"""
    validation_samples: int
    targets: float
    """of these samples; their weights added up, so not always a whole number"""
    seconds: float


@dataclass(frozen=True)
class ValidatedRecord:
    """A validation is over: what it found on each of its groups, in their order."""

    step: int
    groups: tuple[ValidationRecord, ...]


@dataclass(frozen=True)
class DataRecord:
    """What a launch reads."""

    step: int
    """after which it begins"""
    best_by: str | None
    """the validation group by whose loss the best checkpoint is told; None for a run that is not validated"""
    facts: dict[str, Any]
    """JSON, see `data_tools/data_record.py`"""


@dataclass(frozen=True)
class ProfileRecord:
    """Where the time of some steps went, on rank 0."""

    step: int
    """the last of them"""
    first_step: int
    seconds: dict[str, float]
    """of a step, by kind of work; together they are the mean step"""
    trace: str
    """file in the launch's folder"""


@dataclass(frozen=True)
class DataWaitRecord:
    """Some steps in a row waited for samples for a share of their time that is worth telling."""

    step: int
    """the last of them"""
    first_step: int
    waited_seconds: float
    """in all"""
    seconds: float
    """of the steps in all"""
    steps_waiting: int
    """how many of them waited for such a share by themselves"""
    remedy: str
    """key of the run to raise"""


@dataclass(frozen=True)
class ChangeRecord:
    """Something that is set otherwise from a step on, at which the run was resumed."""

    step: int
    """the last one that was trained as before"""
    key: str
    """dotted key of the run; `learning_rate` for a jump of the rate itself"""
    before: Any
    """JSON"""
    now: Any
    """JSON"""


@dataclass(frozen=True)
class Message:
    """Something people should know, for log and record."""

    text: str
