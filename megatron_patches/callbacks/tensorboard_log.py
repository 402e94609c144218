"""TensorBoard scalars, against steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from megatron_patches.callbacks.callback import Callback
from megatron_patches.callbacks.tensorboard_file import EventFile
from megatron_patches.progress import StepRecord, ValidationRecord

if TYPE_CHECKING:
    from megatron_patches.trainer import Trainer


class TensorBoardLog(Callback):
    """Rank 0 only. A resumed launch hides what an earlier one wrote after its step (TensorBoard's purge_step)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: EventFile | None = None

    def on_start(self, trainer: Trainer) -> None:
        self._file = EventFile(self._folder, first_step=trainer.progress.step + 1)

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        assert self._file is not None
        for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "tflops_per_process", "loss_scale"):
            value = getattr(record, name)
            if value is not None:
                self._file.scalar(f"training/{name}", value, record.step)
        self._file.flush()

    def on_validation(self, trainer: Trainer, record: ValidationRecord) -> None:
        assert self._file is not None
        self._file.scalar("validation/loss", record.loss, record.step)
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
