"""A line a step for people, in the launch's log file and on the console; a progress bar on a terminal."""

import sys
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.checkpoint.saver import SaveRecord
from megatron_patches.profiling.time_breakdown import describe_breakdown
from megatron_patches.run.config import RunConfig
from megatron_patches.run.progress import Message, Outcome, ProfileRecord, StepRecord, ValidationRecord

SMOOTHING = 0.9  # of the step time that the ETA is made from: a mean over about ten steps


class ConsoleLog(Callback):
    """Rank 0 only."""

    def __init__(self, path: Path, config: RunConfig, peak: float | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._every_steps = config.logging.every_steps
        self._total = config.timetable.steps
        self._peak = peak
        self._console = Console(highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=self._console, disable=not sys.stdout.isatty(),
        )  # fmt: skip
        self._task = self._bar.add_task(config.name, total=self._total)
        self._seconds: float | None = None

    def print_line(self, line: str) -> None:
        """One line to the log file and to the console."""
        self._file.write(line + "\n")
        self._file.flush()
        self._console.print(line, markup=False, soft_wrap=True)

    def on_start(self, trainer: TrainingLoop) -> None:
        step = trainer.progress.step
        self.print_line(f"{trainer.config.name}: launch {trainer.launch.id}, step {step} of {self._total}")
        if self._peak:
            self.print_line(f"MFU is over {self._peak:g} TFLOP/s (dense, 16 bits); causal attention is counted whole")
        self._bar.reset(self._task, completed=step)  # its clock starts here
        self._bar.start()

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        match record:
            case StepRecord():
                self._show_step(record)
            case ValidationRecord():
                self.print_line(validation_line(record))
            case ProfileRecord():
                self.print_line(profile_line(record))
            case SaveRecord():
                self.print_line(saved_line(record))
            case Message(text):
                self.print_line(text)

    def _show_step(self, record: StepRecord) -> None:
        mixed = record.seconds if self._seconds is None else self._seconds
        self._seconds = SMOOTHING * mixed + (1 - SMOOTHING) * record.seconds
        self._bar.update(self._task, completed=record.step)
        if record.step % self._every_steps == 0 or record.step == self._total:
            self.print_line(step_line(record, self._total, self._seconds, self._peak))

    def on_end(self, trainer: TrainingLoop, outcome: Outcome) -> None:
        reason = f" ({trainer.stop_reason})" if trainer.stop_reason else ""
        self.print_line(f"{outcome.value} at step {trainer.progress.step} of {self._total}{reason}")

    def on_failure(self, trainer: TrainingLoop, error: Exception) -> None:
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


def validation_line(record: ValidationRecord) -> str:
    """The loss of one source."""
    return f"{record.source} after step {record.step}: loss {record.loss:.4f} ({record.validation_samples} samples)"


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
