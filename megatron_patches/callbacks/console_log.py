"""A line a step for people, in the launch's log file and on the console; a progress bar on a terminal."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from megatron_patches.callbacks.callback import Callback
from megatron_patches.progress import Outcome, ProfileRecord, StepRecord, ValidationRecord
from megatron_patches.time_breakdown import describe_breakdown

if TYPE_CHECKING:
    from megatron_patches.checkpoint.saver import SaveRecord
    from megatron_patches.trainer import Trainer

SMOOTHING = 0.9  # of the step time that the ETA is made from: a mean over about ten steps


class ConsoleLog(Callback):
    """Rank 0 only."""

    def __init__(self, path: Path, every_steps: int, peak: float | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._every_steps = every_steps
        self._peak = peak
        self._console = Console(highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=self._console, disable=not sys.stdout.isatty(),
        )  # fmt: skip
        self._seconds: float | None = None

    def say(self, line: str) -> None:
        """One line to the log file and to the console."""
        self._file.write(line + "\n")
        self._file.flush()
        self._console.print(line, markup=False, soft_wrap=True)

    def on_start(self, trainer: Trainer) -> None:
        total = trainer.config.timetable.steps
        self.say(f"{trainer.config.name}: launch {trainer.launch.id}, step {trainer.progress.step} of {total}")
        if self._peak:
            self.say(f"MFU is over {self._peak:g} TFLOP/s (dense, 16 bits); causal attention is counted whole")
        self._task = self._bar.add_task(trainer.config.name, total=total, completed=trainer.progress.step)
        self._bar.start()

    def on_step(self, trainer: Trainer, record: StepRecord) -> None:
        mixed = record.seconds if self._seconds is None else self._seconds
        self._seconds = SMOOTHING * mixed + (1 - SMOOTHING) * record.seconds
        self._bar.update(self._task, completed=record.step)
        total = trainer.config.timetable.steps
        if record.step % self._every_steps == 0 or record.step == total:
            self.say(step_line(record, total, self._seconds, self._peak))

    def on_validation(self, trainer: Trainer, record: ValidationRecord) -> None:
        self.say(f"validation after step {record.step}: loss {record.loss:.4f} ({record.validation_samples} samples)")

    def on_profile(self, trainer: Trainer, record: ProfileRecord) -> None:
        self.say(profile_line(record))

    def on_checkpoint(self, trainer: Trainer, record: SaveRecord) -> None:
        self.say(saved_line(record))

    def on_message(self, trainer: Trainer, text: str) -> None:
        self.say(text)

    def on_end(self, trainer: Trainer, outcome: Outcome) -> None:
        reason = f" ({trainer.stop_reason})" if trainer.stop_reason else ""
        self.say(f"{outcome.value} at step {trainer.progress.step} of {trainer.config.timetable.steps}{reason}")

    def on_failure(self, trainer: Trainer, error: Exception) -> None:
        self._file.write(f"failed after step {trainer.progress.step}: {error}\n")  # the console gets it from train.py

    def close(self) -> None:
        self._bar.stop()
        self._file.close()


def step_line(record: StepRecord, total_steps: int, seconds_per_step: float, peak: float | None) -> str:
    """The readable line of a step; MFU only where the peak is known."""
    remaining = timedelta(seconds=round((total_steps - record.step) * seconds_per_step))
    parts = [
        f"step {record.step:>{len(str(total_steps))}}/{total_steps}",
        f"samples {record.samples:,}",
        f"tokens {record.tokens:,}",
        f"loss {record.loss:.4f}",
        f"lr {record.learning_rate:.3e}",
        f"grad norm {record.grad_norm:.3f}",
        f"{record.tokens_per_second:,.0f} tokens/s",
        f"{record.tflops_per_process:.3g} TFLOP/s",
    ]
    if peak:
        parts.append(f"MFU {record.tflops_per_process / peak:.1%}")
    return " | ".join([*parts, f"ETA {remaining}"])


def profile_line(record: ProfileRecord) -> str:
    """Where the time of the profiled steps went."""
    steps = f"steps {record.first_step} to {record.step}, {sum(record.seconds.values()):.4g} s each"
    return f"profile of {steps}: {describe_breakdown(record.seconds)}; {record.trace}"


def saved_line(record: SaveRecord) -> str:
    """What was saved, what it cost, and what went for it."""
    written = record.written
    cost = f"{written.bytes:,} bytes in {record.write_seconds:.2f} s, training waited {record.stall_seconds:.2f} s"
    why = "" if record.reason in ("interval", "end") else f", {record.reason}"
    gone = f"; removed {', '.join(written.removed)}" if written.removed else ""
    complaint = f"; {written.complaint}" if written.complaint else ""
    return f"saved {written.folder.name} ({cost}{why}){gone}{complaint}"
