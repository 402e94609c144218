"""Weights & Biases, an extra: one id for all launches of a run, offline unless the run says otherwise.

Offline, each launch begins a file of its own, to which no other can append. So a launch first
writes what the run's events say of the steps before it, without those that were rolled back, and then takes away the
records of earlier launches: there is one folder, it holds the whole run, and uploading it replaces what was there.

Online, launches continue one record, whose steps the service takes in ascending order alone: of a run that was rolled
back it would leave out all steps up to where the run had been. So each rollback begins a record of its own in the same
group, with the steps before it; the older one stays there and shows what was left behind.
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

from megatron_patches.artefacts.branch import Beginning, read_beginnings
from megatron_patches.artefacts.manifest import read_manifest
from megatron_patches.artefacts.run_folder import RunFolder
from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.callbacks.logging_config import WandbConfig
from megatron_patches.errors import TrainyardError
from megatron_patches.events.reading import effective, read_events
from megatron_patches.events.tensorboard_files import loss_name, validation_scalars
from megatron_patches.foreign.printable import shortened
from megatron_patches.run.progress import Message, Outcome, StepRecord, ValidationRecord

STEP_NUMBERS = (
    *("loss", "learning_rate", "grad_norm", "tokens_per_second", "samples", "tokens", "loss_scale"),
    *("data_wait_seconds", "padding", "text_tokens_per_second"),
)
LONGEST_WAIT = 10.0
"""seconds that a launch which was stopped, or failed, waits for the steps before it to be written"""

Logged = tuple[int, dict[str, float]]
"""a step and its numbers"""


class WandbLog(Callback):
    """Rank 0 only. It begins with `on_start`: a launch that cannot resume is none to show.

    A picture of the run is not worth the run, and the events have it all: whatever wandb raises, whose errors have no
    base of their own, is told, and the run goes on. Only what its user can put right ends a launch, as it begins.

    A thread writes, in the order of the steps: those of earlier launches take up to a millisecond each, for which
    training does not wait.
    """

    def __init__(self, config: WandbConfig) -> None:
        import wandb  # an extra; the plan has checked that it is there

        self._wandb = wandb
        self._config = config
        self._run: Any = None
        self._pending: SimpleQueue[Logged | None] = SimpleQueue()
        self._said: SimpleQueue[str] = SimpleQueue()
        self._hurry = Event()
        self._writer: Thread | None = None

    def on_start(self, trainer: TrainingLoop) -> None:
        directory = trainer.launch.run
        offline = self._config.mode == "offline"
        try:
            rollback = None if offline else _newest_rollback(directory)
            identity = str(read_manifest(directory.manifest).facts["wandb_id"])
            identity += f"-{rollback.launch}" if rollback else ""
            self._begin(trainer, identity, offline, f" from step {rollback.step}" if rollback else "")
        except (self._wandb.errors.UsageError, self._wandb.errors.AuthenticationError) as error:
            raise TrainyardError(
                f"Weights & Biases does not begin: {shortened(error, 300)}; `wandb login` on this machine, or write "
                "with --logging.wandb.mode offline and upload later, or leave it out with --logging.wandb null"
            ) from error
        except Exception as error:  # noqa: BLE001 - see above
            trainer.emit(Message(_given_up(error)))
            return
        own = Path(self._run.settings.sync_dir)
        trainer.emit(Message(f"Weights & Biases: {f'wandb sync {own} uploads the run' if offline else self._run.url}"))
        before = (directory.events, trainer.progress.step) if offline or not self._run.resumed else None
        self._writer = Thread(target=self._write, args=(own, identity, before), name="wandb", daemon=True)
        self._writer.start()

    def _begin(self, trainer: TrainingLoop, identity: str, offline: bool, ending: str) -> None:
        # of 25 lines a launch the warnings and errors stay; only these settings, made before `init`, leave out the rest
        self._wandb.setup(self._wandb.Settings(show_info=False))
        self._run = self._wandb.init(
            dir=str(trainer.launch.run.path),
            project=self._config.project,
            group=self._config.group or trainer.config.family,
            name=f"{trainer.config.name}{ending}",
            id=identity,
            resume=None if offline else "allow",
            mode=self._config.mode,
            config=trainer.config.model_dump(),
        )

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        self._tell(trainer)
        if self._writer is None or not self._writer.is_alive():
            return  # nobody takes what would be put there
        match record:
            case StepRecord():
                self._pending.put((record.step, _numbers({name: getattr(record, name) for name in STEP_NUMBERS})))
            case ValidationRecord():
                self._pending.put((record.step, {loss_name(record.source): record.loss}))

    def on_end(self, trainer: TrainingLoop, outcome: Outcome) -> None:
        self._finish(None if outcome is Outcome.FINISHED else LONGEST_WAIT)
        self._tell(trainer)

    def close(self) -> None:
        self._finish(LONGEST_WAIT)

    def _tell(self, trainer: TrainingLoop) -> None:
        with suppress(Empty):
            while True:
                trainer.emit(Message(self._said.get_nowait()))

    def _finish(self, patience: float | None) -> None:
        if self._run is None:
            return
        self._pending.put(None)
        if self._writer is not None:
            self._writer.join(patience)
            self._hurry.set()
            self._writer.join()
        run, self._run = self._run, None
        try:
            try:
                run.finish()
            finally:
                self._wandb.teardown()  # else it is done when the process ends, where a failure is a traceback
        except Exception as error:  # noqa: BLE001 - see above
            self._said.put(_given_up(error))

    def _write(self, own: Path, identity: str, before: tuple[Path, int] | None) -> None:
        try:
            if before is None or self._write_earlier(own, identity, *before):
                while (logged := self._pending.get()) is not None:
                    self._run.log(logged[1], step=logged[0])
        except Exception as error:  # noqa: BLE001 - see above
            self._said.put(_given_up(error))

    def _write_earlier(self, own: Path, identity: str, events: Path, until: int) -> bool:
        """The steps of earlier launches; False where there was no time for all, which leaves the older record."""
        older = [path for path in own.parent.glob(f"offline-run-*-{identity}") if path.name != own.name]
        steps: set[int] = set()
        for step, numbers in earlier_steps(events, until):
            if self._hurry.is_set():
                self._said.put(f"Weights & Biases: no time for the steps before this launch's; {own.name} lacks them")
                return False
            self._run.log(numbers, step=step)
            steps.add(step)
        if steps and len(steps) <= until - min(steps):  # what was never in the events is in the older records alone
            self._said.put(
                f"Weights & Biases: the events lack steps before {until}; older records in {own.parent} stay"
            )
            return True
        for folder in older:
            folder.unlink() if folder.is_symlink() else shutil.rmtree(folder, ignore_errors=True)
        return True


def earlier_steps(events: Path, until: int) -> Iterator[Logged]:
    """What a run's events say of each step up to `until`, without what was rolled back."""
    if not until:
        return
    found = read_events(events, ("start", "step", "validation"))
    steps: dict[int, dict[str, float]] = {}
    for event in effective(found, "step"):
        steps[event.facts["step"]] = _numbers({name: event.facts.get(name) for name in STEP_NUMBERS})
    for event in effective(found, "validation"):
        steps.setdefault(event.facts["step"], {}).update(validation_scalars(event.facts))
    yield from sorted((step, numbers) for step, numbers in steps.items() if step <= until)


def _newest_rollback(run: RunFolder) -> Beginning | None:
    return max((each for each in read_beginnings(run) if each.rollback), key=lambda each: each.launch, default=None)


def _given_up(error: Exception) -> str:
    return f"Weights & Biases gets nothing more in this launch: {type(error).__name__}: {shortened(error, 300)}"


def _numbers(found: dict[str, Any]) -> dict[str, float]:
    """What is known, by the names of the charts; events write what is not finite as its name."""
    return {f"training/{name}": float(value) for name, value in found.items() if value is not None}
