"""Keeps the checkpoints around a spike of the loss: the one to go back to, and the one that shows what became of it."""

from collections import deque
from math import isfinite
from statistics import median

from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.callbacks.checkpointing import Checkpointing
from megatron_patches.run.progress import Message, StepRecord

WINDOW = 100  # steps that the median is over
LEAST = 20  # steps before there is a median to speak of


class SpikeWatch(Callback):
    """The loss is the same on every rank, and so is the verdict. A spike is over with the first step below it."""

    def __init__(self, factor: float, checkpointing: Checkpointing) -> None:
        self._factor = factor
        self._checkpointing = checkpointing
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._in_spike = False

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        if not isinstance(record, StepRecord) or not isfinite(record.loss):  # that is the finite guard's affair
            return
        usual = median(self._losses) if len(self._losses) >= LEAST else None
        spikes = usual is not None and record.loss > self._factor * usual
        if spikes and not self._in_spike:
            reason = f"spike at step {record.step}: loss {record.loss:.4f}, median of the steps before {usual:.4f}"
            before = self._checkpointing.pin_around(trainer, reason)
            kept = (
                f"{before} and the next checkpoint are"
                if before
                else "there is no checkpoint before it; the next one is"
            )
            trainer.emit(Message(f"{reason}; {kept} kept"))
        self._in_spike = spikes
        if not spikes:
            self._losses.append(record.loss)
