"""Weights & Biases, an extra: one id for all launches of a run, offline unless the run says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_tools.manifest import read_manifest
from megatron_patches.callbacks.callback import Callback
from megatron_patches.callbacks.logging_config import WandbConfig
from megatron_patches.progress import StepRecord, ValidationRecord

if TYPE_CHECKING:
    from megatron_patches.trainer import Trainer


class WandbLog(Callback):
    """Rank 0 only."""

    def __init__(self, config: WandbConfig) -> None:
        import wandb  # an extra; the plan has checked that it is there

        self._wandb = wandb
        self._config = config
        self._run: Any = None

    def on_start(self, trainer: Trainer) -> None:
        directory = trainer.launch.run
        self._run = self._wandb.init(
            dir=str(directory.path),
            project=self._config.project,
            group=self._config.group or trainer.config.family,
            name=trainer.config.name,
            id=str(read_manifest(directory.manifest).facts["wandb_id"]),
            resume="allow",
            mode=self._config.mode,
            config=trainer.config.model_dump(),
        )

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        names = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "samples", "tokens", "loss_scale")
        measured = {f"training/{name}": getattr(record, name) for name in names if getattr(record, name) is not None}
        self._run.log(measured, step=record.step)

    def on_validation(self, trainer: Trainer, record: ValidationRecord) -> None:
        self._run.log({"validation/loss": record.loss}, step=record.step)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
