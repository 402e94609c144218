"""Saves the run every N steps, at its end, and when it is asked to stop; resumes it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from data_tools.errors import TrainingFailed
from megatron_patches.callbacks.callback import Callback
from megatron_patches.checkpoint.load import StoredState
from megatron_patches.checkpoint.resume import Resumable
from megatron_patches.checkpoint.save import CheckpointContent, save_checkpoint
from megatron_patches.config import to_yaml
from megatron_patches.progress import Outcome

if TYPE_CHECKING:
    from megatron_patches.trainer import Trainer


class Checkpointing(Callback):
    """`identity` and `parents` are the same for every checkpoint of a launch."""

    def __init__(self, every_steps: int, identity: dict[str, object], parents: tuple[str, ...]) -> None:
        self.every_steps = every_steps
        self.identity = identity
        self.parents = parents
        self._saved_step = -1

    def after_update(self, trainer: Trainer) -> None:
        if trainer.progress.step % self.every_steps == 0:
            self.save(trainer)

    def on_end(self, trainer: Trainer, outcome: Outcome) -> None:
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save the current step, once."""
        step = trainer.progress.step
        if step == self._saved_step:
            return
        trainer.read_numbers()
        self._check_owner(trainer)
        started = perf_counter()
        folder = save_checkpoint(
            trainer.launch.run.checkpoints, trainer.engine.state(), self._content(trainer), trainer.groups
        )
        self._saved_step = step
        trainer.pause_clock(perf_counter() - started)
        trainer.announce_checkpoint(folder)

    def _check_owner(self, trainer: Trainer) -> None:
        """Of two launches of a run the newer one owns its directory; the older must not write there any more."""
        newest = trainer.groups.from_rank_0(trainer.launch.newest())
        if newest != trainer.launch.id:
            raise TrainingFailed(
                f"launch {newest} of {trainer.config.name} was started while {trainer.launch.id}, this one, was "
                f"running, and owns it; this one ends at step {trainer.progress.step} without saving. Start a run once "
                "at a time: the same command resumes it when it has ended"
            )

    def _content(self, trainer: Trainer) -> CheckpointContent:
        config, progress, layout = trainer.config, trainer.progress, trainer.groups.layout
        facts = {
            "run": config.name,
            "launch": trainer.launch.id,
            **asdict(progress),
            "learning_rate": config.learning_rate(progress.step),
            "next_learning_rate": config.learning_rate(progress.step + 1),
            "optimizer_steps": trainer.engine.optimizer_steps(),
            "seed": config.training.seed,
            "layout": {**asdict(layout), "zero_stage": config.parallel.zero_stage},
            "identity": self.identity,
        }
        states = {callback.state_key: callback.state() for callback in trainer.callbacks if callback.state_key}
        return CheckpointContent(
            step=progress.step,
            launch=trainer.launch.id,
            facts=facts,
            trainer={"progress": asdict(progress), "callbacks": states, "engine": trainer.engine.scalars()},
            config=to_yaml(config),
            parents=self.parents,
        )

    def resume(self, trainer: Trainer, checkpoint: Resumable) -> None:
        """Take weights, moments, progress and callbacks' states from a checkpoint; randomness follows from the step."""
        pieces = trainer.engine.state()
        StoredState(checkpoint.folder).restore(pieces)
        steps = checkpoint.manifest.facts["optimizer_steps"]
        assert isinstance(steps, int)
        trainer.engine.set_optimizer_steps(steps)
        trainer.engine.load_scalars(checkpoint.trainer.get("engine", {}))
        for name, value in checkpoint.trainer["progress"].items():
            setattr(trainer.progress, name, value)
        for callback in trainer.callbacks:
            if callback.state_key in checkpoint.trainer["callbacks"]:
                callback.load_state(checkpoint.trainer["callbacks"][callback.state_key])
        self._saved_step = trainer.progress.step


def describe_resume(checkpoint: Resumable, remaining: int) -> str:
    """One line that says what is continued."""
    folder: Path = checkpoint.folder
    return f"resuming from {folder.name} (step {checkpoint.manifest.facts['step']}, {remaining} steps to go)"
