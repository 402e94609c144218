"""Saves the run every N steps, at its end, when it is asked to stop, and when somebody asks for it; resumes it."""

from dataclasses import asdict

from data_tools.samples.skipping import SkippedSamples
from megatron_patches.artefacts.folders import Content, checkpoint_name, list_checkpoints
from megatron_patches.artefacts.marks import pin
from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.callbacks.save_request import SaveRequest
from megatron_patches.checkpoint.resume import Resumable
from megatron_patches.checkpoint.save import CheckpointContent
from megatron_patches.checkpoint.saver import SaveOrder, Saver
from megatron_patches.errors import TrainingFailed
from megatron_patches.parallel.votes import Question
from megatron_patches.run.progress import Message, Outcome, ValidationRecord
from megatron_patches.run.reading import to_yaml
from megatron_patches.run.run_directory import Launch
from megatron_patches.sizes import counted, readable


class Checkpointing(Callback):
    """`identity` and `parents` are the same for every checkpoint of a launch.

    On the question `done` the ranks vote whether a save that is being written is whole.
    """

    def __init__(
        self,
        saver: Saver,
        request: SaveRequest,
        done: Question,
        identity: dict[str, object],
        parents: tuple[str, ...],
    ) -> None:
        self.saver = saver
        self.identity = identity
        self.parents = parents
        self._saved_step = -1
        self._validation: ValidationRecord | None = None
        self._pin_next: str | None = None
        self._request = request
        self._done = done

    def on_start(self, trainer: TrainingLoop) -> None:
        if reserved := self.saver.reserved_bytes:
            trainer.emit(Message(f"checkpoints are written from a copy: {readable(reserved)} of host memory on rank 0"))

    def after_update(self, trainer: TrainingLoop) -> None:
        if self._done.verdict and self.saver.busy:
            self._finish(trainer)
        order = self._due(trainer)
        if asked := self._request.answer(trainer.groups):
            self._pin_next = asked
            weights = order is not None and "weights" in order.contents
            order = SaveOrder(("full", "weights") if weights else ("full",), asked)
        if order is not None:
            self._save(trainer, order)
        # rank 0 is through with a save only when all ranks are: the last thing that they do, they do together
        self._done.vote = int(trainer.is_first_rank and self.saver.done)

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        # of several sources' at one step the first one's is the run's
        if isinstance(record, ValidationRecord) and not self._validated(record.step):
            self._validation = record

    def on_end(self, trainer: TrainingLoop, outcome: Outcome) -> None:
        if trainer.progress.step != self._saved_step:
            self._save(trainer, SaveOrder(("full",), "stop" if outcome is Outcome.STOPPED else "end"))
        self._finish(trainer)
        if outcome is Outcome.STOPPED:
            step, steps = trainer.progress.step, trainer.config.timetable.steps
            trainer.emit(Message(
                f"{checkpoint_name(step)} is whole, with {counted(steps - step, 'step')} of {steps:,} to go: give the "
                "same command, or submit the same file, and the run continues there"
            ))  # fmt: skip

    def close(self) -> None:
        self.saver.close()

    def pin_around(self, trainer: TrainingLoop, reason: str) -> str | None:
        """Keep the newest checkpoint that is whole, and the next one; on rank 0 the newest's name, if there is one."""
        self._finish(trainer)
        self._pin_next = reason
        newest = list_checkpoints(trainer.launch.run.checkpoints)[:1] if trainer.is_first_rank else []
        for folder in newest:
            try:
                pin(folder, reason)
            except OSError as error:  # a full disk: the next save will say what to do
                trainer.emit(Message(f"{folder.name} cannot be pinned: {error}"))
                return None
        return newest[0].name if newest else None

    def _due(self, trainer: TrainingLoop) -> SaveOrder | None:
        """What the intervals ask for at this step."""
        step, rules = trainer.progress.step, trainer.config.checkpoint
        contents: list[Content] = []
        if step % rules.every_steps == 0:
            contents.append("full")
        if rules.weights_every_steps and step % rules.weights_every_steps == 0:
            contents.append("weights")
        if contents:
            return SaveOrder(tuple(contents), "interval")
        if rules.ephemeral_every_steps and step % rules.ephemeral_every_steps == 0:
            if not self.saver.busy:
                return SaveOrder(("full",), "ephemeral")
            trainer.emit(Message(f"no ephemeral checkpoint of step {step}: another one is still being written"))
        return None

    def _save(self, trainer: TrainingLoop, order: SaveOrder) -> None:
        """Begin to save the current step; a save that is still being written comes first."""
        self._finish(trainer)
        trainer.read_numbers()
        self._check_owner(trainer)
        with trainer.outside_steps():
            self.saver.begin(trainer.engine.state(), self._content(trainer, order), order)
        if "full" in order.contents:
            self._saved_step, self._pin_next = trainer.progress.step, None
        if not trainer.config.checkpoint.asynchronous:
            self._finish(trainer)

    def _finish(self, trainer: TrainingLoop) -> None:
        """Wait for the save that is being written, if there is one, and tell everybody."""
        if not self.saver.busy:
            return
        with trainer.outside_steps():
            records = self.saver.finish()
        for record in records:
            trainer.emit(record)
        self._request.done({record.reason for record in records})

    def _check_owner(self, trainer: TrainingLoop) -> None:
        """Of two launches of a run the newer one owns its directory; the older must not write there any more."""
        newest = trainer.groups.from_rank_0(_newest_launch(trainer.launch) if trainer.is_first_rank else None)
        if newest is None:
            raise TrainingFailed(
                f"{trainer.launch.run.path} was deleted or moved while the run was at work; this launch ends at step "
                f"{trainer.progress.step} without saving. Put the folder back, then start the run again: it continues "
                "from the newest whole checkpoint in it"
            )
        if newest != trainer.launch.id:
            raise TrainingFailed(
                f"launch {newest} of {trainer.config.name} was started while {trainer.launch.id}, this one, was "
                f"running, and owns it; this one ends at step {trainer.progress.step} without saving. Start a run once "
                "at a time: the same command resumes it when it has ended"
            )

    def _content(self, trainer: TrainingLoop, order: SaveOrder) -> CheckpointContent:
        config, progress, layout = trainer.config, trainer.progress, trainer.groups.layout
        counters = {name: counter.item() for name, counter in trainer.engine.counters().items()}
        facts = {
            "run": config.name,
            "launch": trainer.launch.id,
            **asdict(progress),
            "skipped_samples": SkippedSamples(config.data.skip_samples).passed(progress.samples),
            "reason": order.reason,
            "learning_rate": config.learning_rate(progress.step),
            "next_learning_rate": config.learning_rate(progress.step + 1),
            "optimizer_steps": int(counters.pop("optimizer_steps")),
            "seed": config.training.seed,
            "layout": {**asdict(layout), "zero_stage": config.parallel.zero_stage},
            "identity": self.identity,
        }
        if validation := self._validated(progress.step):
            facts["validation_loss"] = validation.loss
        states = {callback.state_key: callback.state() for callback in trainer.callbacks if callback.state_key}
        return CheckpointContent(
            step=progress.step,
            launch=trainer.launch.id,
            facts=facts,
            trainer={"progress": asdict(progress), "callbacks": states, "engine": counters},
            config=to_yaml(config),
            parents=self.parents,
            pin=self._pin_next,
        )

    def _validated(self, step: int) -> ValidationRecord | None:
        """What was found of the weights after this step, if they were validated."""
        return self._validation if self._validation is not None and self._validation.step == step else None

    def resume(self, trainer: TrainingLoop, checkpoint: Resumable) -> None:
        """Take progress and callbacks' states from a checkpoint whose tensors are loaded; randomness follows from the
        step."""
        steps = checkpoint.manifest.facts["optimizer_steps"]
        assert isinstance(steps, int)
        trainer.engine.load_counters({"optimizer_steps": steps, **checkpoint.trainer.get("engine", {})})
        for name, value in checkpoint.trainer["progress"].items():
            setattr(trainer.progress, name, value)
        for callback in trainer.callbacks:
            if callback.state_key in checkpoint.trainer["callbacks"]:
                callback.load_state(checkpoint.trainer["callbacks"][callback.state_key])
        self._saved_step = trainer.progress.step


def _newest_launch(launch: Launch) -> str | None:
    """None where the run's folder is gone."""
    try:
        return launch.newest() if launch.directory.is_dir() else None
    except OSError:
        return None


def describe_resume(checkpoint: Resumable, remaining: int) -> str:
    """One line that says what is continued."""
    left = counted(remaining, "step")
    return f"resuming from {checkpoint.folder.name} (step {checkpoint.manifest.facts['step']}, {left} to go)"
