"""A profile of some steps of a launch: `launches/<n>/trace-rank0.json`, and where the time goes."""

from megatron_patches.callbacks.callback import Callback, TrainingLoop
from megatron_patches.callbacks.profiling_config import ProfileConfig
from megatron_patches.errors import TrainingFailed
from megatron_patches.profiling.step_profile import StepProfile
from megatron_patches.run.progress import Message, Outcome, ProfileRecord
from megatron_patches.sizes import counted


class Profiling(Callback):
    """Every rank is profiled, so that none waits for a slower one more than it would; rank 0 writes.

    A step is from one `after_update` to the next: validations and saves between two of them are in it.
    """

    def __init__(self, config: ProfileConfig) -> None:
        self._config = config
        self._steps = 0
        """of this launch"""
        self._running: StepProfile | None = None

    def on_start(self, trainer: TrainingLoop) -> None:
        self._start_when_due(trainer)

    def after_update(self, trainer: TrainingLoop) -> None:
        self._steps += 1
        if self._running is not None:
            last = self._steps == self._config.after_step + self._config.steps
            self._running.end_step(last)
            if last:
                self._finish(trainer, self._running)
                self._running = None
        self._start_when_due(trainer)

    def on_end(self, trainer: TrainingLoop, outcome: Outcome) -> None:
        wanted = self._config.after_step + self._config.steps
        if self._steps < wanted:
            trainer.emit(
                Message(
                    f"no profile: it needs {counted(wanted, 'step')} of a launch (profile.after_step "
                    f"{self._config.after_step} + profile.steps {self._config.steps}), and this launch had "
                    f"{self._steps}; lower profile.after_step"
                )
            )

    def close(self) -> None:
        if self._running is not None:
            self._running.stop()

    def _start_when_due(self, trainer: TrainingLoop) -> None:
        if self._steps != self._config.after_step:
            return
        trainer.read_numbers()
        with trainer.outside_steps():
            self._running = StepProfile(trainer.groups.device, trainer.batches, trainer.engine)
            self._running.start()

    def _finish(self, trainer: TrainingLoop, found: StepProfile) -> None:
        trainer.read_numbers()
        with trainer.outside_steps():
            seconds = found.seconds_by_kind()
            trace = trainer.launch.trace
            if trainer.is_first_rank:
                try:
                    found.write(trace)
                except TrainingFailed as error:  # a picture of the run is not worth the run
                    trainer.emit(Message(str(error)))
        last = trainer.progress.step
        trainer.emit(ProfileRecord(last, last - self._config.steps + 1, seconds, trace.name))
