"""Saves the run every N steps, at its end, when it is asked to stop, and when somebody asks for it; resumes it."""

from dataclasses import asdict
from math import isfinite

from pydantic import JsonValue

from data_tools.samples.delivered import FACT as DELIVERED
from data_tools.samples.delivered import delivered_of
from data_tools.samples.skipping import SkippedSamples
from megatron_patches.artefacts.branch import Beginning, id_of_run, read_beginnings, record_beginning
from megatron_patches.artefacts.chosen import BEST_BY, VALIDATION_LOSS, VALIDATION_LOSSES
from megatron_patches.artefacts.descent import descent_of_launch, number_of_launch
from megatron_patches.artefacts.folders import DATA_PARENTS, Content, checkpoint_name, present_checkpoints
from megatron_patches.artefacts.manifest import Manifest
from megatron_patches.artefacts.marks import pin
from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.callbacks.save_request import SaveRequest
from megatron_patches.checkpoint.recorded_changes import CHANGES, as_fact
from megatron_patches.checkpoint.resume import Resumable
from megatron_patches.checkpoint.save import CheckpointContent
from megatron_patches.checkpoint.saver import SaveOrder, Saver
from megatron_patches.checkpoint.starting_point import INITIAL, InitialWeights
from megatron_patches.checkpoint.tokenizer_files.travelling import TravellingTokenizer
from megatron_patches.errors import TrainingFailed, TrainyardError
from megatron_patches.foreign.printable import printable
from megatron_patches.parallel.votes import Question
from megatron_patches.run.ownership import has_begun, later_launches
from megatron_patches.run.progress import ChangeRecord, Message, Outcome, ValidatedRecord
from megatron_patches.run.reading import to_yaml
from megatron_patches.run.run_directory import Launch
from megatron_patches.sizes import counted, readable


class Checkpointing(Callback):
    """`identity` and `parents`, its data and tokenizer, are the same for every checkpoint of a launch.

    `came_from` is the manifest of the checkpoint that the launch took its weights from, None where they were drawn;
    whoever loads weights sets it, and `begin` puts it on record. Each full save is then the next one's first parent.

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
        self.changes: list[ChangeRecord] = []
        """what was set otherwise in the course of the run; set where it is resumed"""
        self.came_from: Manifest | None = None
        self.further_facts: dict[str, object] = {}
        """of every checkpoint's manifest"""
        self.tokenizer = TravellingTokenizer()
        """files that go along with every checkpoint; rank 0's are written"""
        self._parent: str | None = None
        self._descent: dict[str, JsonValue] = {}
        self._saved_step = -1
        self._validated: ValidatedRecord | None = None
        self._pin_next: str | None = None
        self._request = request
        self._done = done

    def begin(self, trainer: TrainingLoop) -> None:
        """Put on record where the launch begins, once it is known and before the first step.

        Raises:
            Damaged: the run's manifest was changed. OSError as writing does.
        """
        launch, step = trainer.launch, trainer.progress.step
        self._parent = self.came_from.id if self.came_from else None
        if trainer.is_first_rank:  # which alone writes manifests
            number = number_of_launch(launch.id)
            self._descent = descent_of_launch(id_of_run(launch.run), number, step, self.came_from)
            record_beginning(launch.directory, Beginning(number, step, self._parent))

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
        if isinstance(record, ValidatedRecord):
            self._validated = record

    def on_end(self, trainer: TrainingLoop, outcome: Outcome) -> None:
        if trainer.progress.step != self._saved_step:
            self._save(trainer, SaveOrder(("full",), "stop" if outcome is Outcome.STOPPED else "end"))
        self._finish(trainer)
        if yields := self._check_owner(trainer):
            raise TrainingFailed(yields)
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
        newest = present_checkpoints(trainer.launch.run.checkpoints)[:1] if trainer.is_first_rank else []
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
        yields = self._check_owner(trainer)
        with trainer.outside_steps():
            self.saver.begin(trainer.engine.state(), self._content(trainer, order), order)
        if "full" in order.contents:
            self._saved_step, self._pin_next = trainer.progress.step, None
        if yields or not trainer.config.checkpoint.asynchronous:
            self._finish(trainer)
        if yields:
            raise TrainingFailed(yields)

    def _finish(self, trainer: TrainingLoop) -> None:
        """Wait for the save that is being written, if there is one, and tell everybody."""
        if not self.saver.busy:
            return
        with trainer.outside_steps():
            records = self.saver.finish()
        for record in records:
            if record.content == "full":
                self._parent = record.written.id
            trainer.emit(record)
        self._request.done({record.reason for record in records})

    def _check_owner(self, trainer: TrainingLoop) -> str | None:
        """Why this launch ends after the save, on every rank: another one has claimed the run, and waits for nothing.

        Raises:
            TrainingFailed: the run's folder is gone, or the other launch trains already: nothing is saved then.
        """
        found = trainer.groups.from_rank_0(_later_owner(trainer.launch) if trainer.is_first_rank else None)
        if found is None:
            return None
        later, trains_from = found
        if later is None:
            raise TrainingFailed(
                f"{trainer.launch.run.path} was deleted or moved while the run was at work; this launch ends at step "
                f"{trainer.progress.step} without saving. Put the folder back, then start the run again: it continues "
                "from the newest whole checkpoint in it"
            )
        taken = (
            f"launch {later} of {trainer.config.name} has taken the run over from {trainer.launch.id}, this one, which "
            "gave no sign of life for a while"
        )
        if trains_from is not None:
            raise TrainingFailed(
                f"{taken}, and trains already{trains_from}; this one ends at step {trainer.progress.step} without "
                "saving, and what it trained since its last save is trained again by the other"
            )
        return f"{taken}; this one has saved step {trainer.progress.step} and ends"

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
            DATA_PARENTS: len(self.parents),
            **self._descent,
            **self.further_facts,
        }
        if trainer.delivered is not None:
            facts[DELIVERED] = trainer.delivered.as_fact()
        if self.changes:
            facts[CHANGES] = as_fact(self.changes)
        facts |= self._validation_facts(trainer)
        states = {callback.state_key: callback.state() for callback in trainer.callbacks if callback.state_key}
        return CheckpointContent(
            step=progress.step,
            launch=trainer.launch.id,
            facts=facts,
            trainer={"progress": asdict(progress), "callbacks": states, "engine": counters},
            config=to_yaml(config),
            parents=(*filter(None, [self._parent]), *self.parents),
            tokenizer=self.tokenizer,
            pin=self._pin_next,
        )

    def _validation_facts(self, trainer: TrainingLoop) -> dict[str, object]:
        """By which group the best is told; and what was found of the weights after this step, if they were validated.

        The group is named in every checkpoint: after a resume that goes by another one, the next save says so. A loss
        that is not finite is in the events alone: no manifest holds one.
        """
        group = trainer.config.best_group
        facts: dict[str, object] = {} if group is None else {BEST_BY: group}
        if self._validated is not None and self._validated.step == trainer.progress.step:
            losses = {each.source: each.loss for each in self._validated.groups if isfinite(each.loss)}
            facts[VALIDATION_LOSSES] = losses
            if group in losses:
                facts[VALIDATION_LOSS] = losses[group]
        return facts

    def begin_from(self, start: InitialWeights, source: Manifest) -> None:
        """Put on record what the run's weights were loaded from."""
        self.came_from = source
        self.further_facts[INITIAL] = start.as_fact()

    def resume(self, trainer: TrainingLoop, checkpoint: Resumable) -> None:
        """Take progress and callbacks' states from a checkpoint whose tensors are loaded; randomness follows from the
        step."""
        steps = checkpoint.manifest.facts["optimizer_steps"]
        assert isinstance(steps, int)
        trainer.engine.load_counters({"optimizer_steps": steps, **checkpoint.trainer.get("engine", {})})
        for name, value in checkpoint.trainer["progress"].items():
            setattr(trainer.progress, name, value)
        trainer.delivered = delivered_of(checkpoint.manifest.facts)
        for callback in trainer.callbacks:
            if callback.state_key in checkpoint.trainer["callbacks"]:
                callback.load_state(checkpoint.trainer["callbacks"][callback.state_key])
        if began := checkpoint.manifest.facts.get(INITIAL):
            self.further_facts[INITIAL] = began
        self._saved_step = trainer.progress.step
        self.came_from = checkpoint.manifest


def describe_start(start: InitialWeights) -> str:
    """One line that says what is begun from."""
    return f"beginning at step 0 with the weights of {printable(start.whose)} ({start.id[:12]})"


def _later_owner(launch: Launch) -> tuple[str | None, str | None] | None:
    """The launch that took the run over, and from where it trains, None before it does; None where none took it over.
    It has no name where the run's folder is gone."""
    try:
        if not launch.directory.is_dir():
            return None, None
        later = later_launches(launch.directory)
        begun = [each for each in later if has_begun(each)]
    except OSError:
        return None, None
    if not later:
        return None
    return later[-1].name, _where_it_began(launch, begun[-1].name) if begun else None


def _where_it_began(launch: Launch, later: str) -> str:
    """In words; empty where the record cannot be read."""
    try:
        steps = {each.launch: each.step for each in read_beginnings(launch.run)}
    except TrainyardError:
        return ""
    return f" from step {steps[int(later)]} on" if int(later) in steps else ""


def describe_resume(checkpoint: Resumable, remaining: int) -> str:
    """One line that says what is continued."""
    left = counted(remaining, "step")
    return f"resuming from {checkpoint.folder.name} (step {checkpoint.manifest.facts['step']}, {left} to go)"
