"""Weights & Biases, an extra: one id for all launches of a run, offline unless the run says otherwise."""

from typing import Any

from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.callbacks.logging_config import WandbConfig
from megatron_patches.run.progress import StepRecord, ValidationRecord


class WandbLog(Callback):
    """Rank 0 only. It begins with `on_start`: a launch that cannot resume is none to show."""

    def __init__(self, config: WandbConfig) -> None:
        import wandb  # an extra; the plan has checked that it is there

        self._wandb = wandb
        self._config = config
        self._run: Any = None

    def on_start(self, trainer: TrainingLoop) -> None:
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

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        match record:
            case StepRecord():
                self._run.log(_measured(record), step=record.step)
            case ValidationRecord():
                self._run.log({f"{record.source}/loss": record.loss}, step=record.step)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


def _measured(record: StepRecord) -> dict[str, float]:
    names = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "samples", "tokens", "loss_scale")
    return {f"training/{name}": getattr(record, name) for name in names if getattr(record, name) is not None}
