"""TensorBoard scalars, against steps."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.run.progress import StepRecord, ValidationRecord


class TensorBoardLog(Callback):
    """Rank 0 only. A resumed launch hides what an earlier one wrote after its step (TensorBoard's purge_step).

    So there is no writer before `on_start`: the step is known when the run has resumed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def on_start(self, trainer: TrainingLoop) -> None:
        self._writer = SummaryWriter(str(self._folder), purge_step=trainer.progress.step + 1)

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        match record:
            case StepRecord():
                self._write_step(record)
            case ValidationRecord():
                self._write(f"{record.source}/loss", record.loss, record.step)

    def _write_step(self, record: StepRecord) -> None:
        for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "tflops_per_process", "loss_scale"):
            value = getattr(record, name)
            if value is not None:
                self._write(f"training/{name}", value, record.step)

    def _write(self, name: str, value: float, step: int) -> None:
        assert self._writer is not None
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
