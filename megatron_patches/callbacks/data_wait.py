"""Puts on record that steps wait for samples, and says which setting to raise."""

from collections import deque

from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.run.config import RunConfig
from megatron_patches.run.progress import DataWaitRecord, Message, StepRecord

LEAST_SHARE = 0.05
"""of the time of steps: steps differ by a few percent of themselves, and a twentieth is more than an hour a day"""
_STEPS = 20
"""that the share is of: a save or a validation that takes the disk for a moment is none"""
_PAUSE_SECONDS = 600.0
"""of steps from one message to the next"""


class DataWait(Callback):
    """Rank 0 only. A launch's first step is left out: it waits for the first samples in any case."""

    def __init__(self) -> None:
        self._last: deque[StepRecord] = deque(maxlen=_STEPS)
        self._first_step = 0
        self._silent_seconds = 0.0
        """that are left"""

    def on_start(self, trainer: TrainingLoop) -> None:
        self._first_step = trainer.progress.step + 1

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        if not isinstance(record, StepRecord) or record.step == self._first_step:
            return
        self._last.append(record)
        self._silent_seconds -= record.seconds
        if len(self._last) < _STEPS or self._silent_seconds > 0:
            return
        waited = sum(step.data_wait_seconds or 0.0 for step in self._last)
        seconds = sum(step.seconds for step in self._last)
        if waited > LEAST_SHARE * seconds:
            self._silent_seconds = _PAUSE_SECONDS
            self._tell(trainer, waited, seconds)

    def _tell(self, trainer: TrainingLoop, waited: float, seconds: float) -> None:
        waiting = sum(waits(step) for step in self._last)
        steady = 2 * waiting > len(self._last)
        key, remedy = (_of_slow_reading if steady else _of_single_waits)(trainer.config)
        found = DataWaitRecord(self._last[-1].step, self._last[0].step, waited, seconds, waiting, key)
        trainer.emit(found)
        trainer.emit(Message(
            f"steps {found.first_step} to {found.step} waited for data for {waited / seconds:.0%} of their time, "
            f"{found.steps_waiting} of {len(self._last)} for long: {remedy}"
        ))  # fmt: skip


def waits(step: StepRecord) -> bool:
    """Whether a step waited for samples for a share of its time that is worth telling."""
    return (step.data_wait_seconds or 0.0) > LEAST_SHARE * step.seconds


def _of_slow_reading(config: RunConfig) -> tuple[str, str]:
    return "data.loader.workers", (
        f"they are read more slowly than they are trained on; raise data.loader.workers above "
        f"{config.data.loader.workers} if cores are free, or bring the data to faster storage"
    )


def _of_single_waits(config: RunConfig) -> tuple[str, str]:
    loader = config.data.loader
    if not loader.persistent and config.evaluation is not None:
        return "data.loader.persistent", "each validation ends what reads ahead; set data.loader.persistent to true"
    return "data.loader.prefetch", (
        f"reading stands still at times; raise data.loader.prefetch above {loader.prefetch} if there is memory for it"
    )
