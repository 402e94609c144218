"""What a feature of the training loop hears of, and what it may use of the loop.

A feature is a `Callback` that overrides what it needs, and is listed in `training/build_callbacks.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from data_tools.samples.delivered import Delivered
from megatron_patches.checkpoint.saver import SaveRecord
from megatron_patches.engine.interface import Engine
from megatron_patches.objectives.batches import TrainingBatches
from megatron_patches.parallel.process_groups import ProcessGroups
from megatron_patches.run.config import RunConfig
from megatron_patches.run.progress import (
    ChangeRecord,
    DataRecord,
    DataWaitRecord,
    Message,
    Outcome,
    ProfileRecord,
    Progress,
    StepRecord,
    ValidatedRecord,
    ValidationRecord,
)
from megatron_patches.run.run_directory import Launch

Record = (
    StepRecord | ValidationRecord | ValidatedRecord | ProfileRecord | SaveRecord | ChangeRecord | DataRecord
    | DataWaitRecord | Message
)  # fmt: skip
"""what callbacks tell each other, and the trainer them; a callback passes over kinds that it does not know"""


class TrainingLoop(Protocol):
    """What callbacks, and the profile of steps, may use of the trainer."""

    config: RunConfig
    launch: Launch
    groups: ProcessGroups
    engine: Engine
    batches: TrainingBatches
    callbacks: Sequence[Callback]
    progress: Progress
    delivered: Delivered | None
    """all samples that were delivered since the run's first step; None where the checkpoint resumed from did not say"""
    stop_reason: str | None
    """why the launch stops before its last step; None while it does not"""

    @property
    def is_first_rank(self) -> bool:
        """Whether this rank writes logs and events for all."""

    def emit(self, record: Record) -> None:
        """Tell every callback."""

    def read_numbers(self) -> None:
        """Wait for the step whose numbers are still on the device, if any, and emit them."""

    def outside_steps(self) -> AbstractContextManager[None]:
        """Time spent within it (validation, saving) is not counted as a step's."""

    def request_stop(self, reason: str) -> None:
        """Stop after this step; every rank must ask in the same step."""


class Callback:
    """Events come in the order in which callbacks are listed.

    Those that record exist on rank 0 alone; all others hear every event on every rank, and may talk to other ranks.
    One with a state names it in `state_key`: rank 0's is saved, and every rank loads it.
    """

    state_key: str | None = None

    def on_start(self, trainer: TrainingLoop) -> None:
        """Before the first step of this launch; a resumed run has its progress already."""

    def after_update(self, trainer: TrainingLoop) -> None:
        """After the weights changed; numbers of the step are still on the device."""

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        """Something happened that people or other callbacks should know of.

        A step's numbers are known one step later on a GPU, and before `after_update` on a CPU. Before `on_start` there
        may be messages, changes and the launch's data, and nothing else.
        """

    def on_end(self, trainer: TrainingLoop, outcome: Outcome) -> None:
        """After the last step of this launch, whatever ended it but a failure."""

    def on_failure(self, trainer: TrainingLoop, error: Exception) -> None:
        """This rank raised; other ranks may not have, so nothing here may wait for them."""

    def close(self) -> None:
        """Release files and handlers; also called after a failure."""

    def state(self) -> dict[str, Any]:
        """What the callback must know after a resume, as JSON; saved in every checkpoint."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned; not called for a checkpoint from before the callback had a state."""
