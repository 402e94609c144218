"""A line a step for people, in the launch's log file and on the console; a progress bar on a terminal."""

import errno
import os
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from textwrap import fill
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from megatron_patches.atomic_files import append_to
from megatron_patches.callbacks.callback import Callback, Record, TrainingLoop
from megatron_patches.callbacks.data_wait import waits
from megatron_patches.checkpoint.saver import SaveRecord
from megatron_patches.errors import TrainingFailed
from megatron_patches.profiling.time_breakdown import describe_breakdown
from megatron_patches.run.config import RunConfig
from megatron_patches.run.progress import Message, Outcome, ProfileRecord, StepRecord, ValidatedRecord
from megatron_patches.sizes import counted, readable

COLUMNS = "s a step, t/s tokens, TF TFLOP/s a process"
_SIGNS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SMOOTHING = 0.9  # of the step time that the ETA is made from: a mean over about ten steps


class _Terminal(Console):
    def on_broken_pipe(self) -> NoReturn:
        """In place of rich's, which ends the process."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class ConsoleLog(Callback):
    """Rank 0 only. A line is whole in the file and in a pipe, and folded behind its time of day on a terminal.

    Lines are for people, and events are the record: a run goes on where the disk of the log is full, or where nobody
    reads its console any more (a terminal that was closed, `| head`).
    """

    def __init__(self, path: Path, config: RunConfig, peak: float | None) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = append_to(path, buffering=0)  # what could not be written is not tried again at the next line
        except OSError as error:
            raise TrainingFailed(f"{path}: the log cannot be written ({error.strerror})") from error
        self._path = path
        self._lines_lost = False
        self._every_steps = config.logging.every_steps
        self._total = config.timetable.steps
        self._peak = peak
        self._console = _Terminal(highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=self._console, disable=not sys.stdout.isatty(),
        )  # fmt: skip
        self._task = self._bar.add_task(config.name, total=self._total)
        self._seconds: float | None = None
        self._first_step = 0

    def print_line(self, text: str) -> None:
        """One line to the log file and to the console, headed by the time of day."""
        self._append(text)
        self._show(text)

    def _append(self, text: str) -> None:
        try:
            self._file.write((_timed(text) + "\n").encode(errors="backslashreplace"))
        except OSError as error:
            if not self._lines_lost:  # told once; later lines are tried again
                self._lines_lost = True
                self._show(f"{self._path} cannot be written to ({error.strerror}): lines are missing there")

    def _show(self, text: str) -> None:
        line = _timed(text)
        terminal, width = self._console.is_terminal, self._console.width
        # names have hyphens, and are looked for as a whole
        folded = fill(line, width, subsequent_indent=" " * 9, break_on_hyphens=False) if terminal else line
        try:
            self._console.print(folded, markup=False, soft_wrap=True)
        except OSError as error:
            self._leave_console()
            self._append(
                f"the console cannot be written to ({error.strerror}): from here on lines are in this file alone"
            )

    def _leave_console(self) -> None:
        """Nothing more is printed on stdout; what it still holds would fail again when the process ends."""
        self._console.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

    def on_start(self, trainer: TrainingLoop) -> None:
        step = trainer.progress.step
        self._first_step = step + 1
        self.print_line(f"{trainer.config.name}: launch {trainer.launch.id}, step {step} of {self._total}")
        self.print_line(f"{datetime.now().astimezone():%Y-%m-%d UTC%z}; {COLUMNS}")
        if self._peak:
            self.print_line(f"MFU is over {self._peak:g} TFLOP/s (dense, 16 bits); causal attention is counted whole")
        self._bar.reset(self._task, completed=step)  # its clock starts here
        self._bar.start()

    def on_record(self, trainer: TrainingLoop, record: Record) -> None:
        match record:
            case StepRecord():
                self._show_step(record)
            case ValidatedRecord():
                self.print_line(validation_line(record))
            case ProfileRecord():
                self.print_line(profile_line(record))
            case SaveRecord():
                for line in saved_lines(record):
                    self.print_line(line)
            case Message(text):
                self.print_line(text)

    def _show_step(self, record: StepRecord) -> None:
        mixed = record.seconds if self._seconds is None else self._seconds
        self._seconds = SMOOTHING * mixed + (1 - SMOOTHING) * record.seconds
        self._bar.update(self._task, completed=record.step)
        if record.step % self._every_steps == 0 or record.step == self._total:
            # the first one waits for the first samples in any case
            waited = record.data_wait_seconds if waits(record) and record.step != self._first_step else None
            self.print_line(step_line(record, self._total, waited))
        if self._is_tenth(record.step):
            self.print_line(outlook_line(record, self._total, self._seconds, self._peak))

    def _is_tenth(self, step: int) -> bool:
        """Whether another tenth of the run is over; in a log of few lines that is plain to see."""
        tenths = [at * 10 // self._total for at in (step - 1, step)]
        return self._total >= 30 * self._every_steps and tenths[0] < tenths[1] < 10

    def on_end(self, trainer: TrainingLoop, outcome: Outcome) -> None:
        reason = f" ({trainer.stop_reason})" if trainer.stop_reason else ""
        self.print_line(f"{outcome.value} at step {trainer.progress.step} of {self._total}{reason}")

    def on_failure(self, trainer: TrainingLoop, error: Exception) -> None:
        # the console gets it from train.py
        self._append(f"failed after step {trainer.progress.step}: {error}")

    def close(self) -> None:
        try:
            self._bar.stop()
        except OSError:
            self._leave_console()
        self._file.close()


def _timed(text: str) -> str:
    return f"{datetime.now():%H:%M:%S} {text}"


def step_line(record: StepRecord, total_steps: int, waited: float | None = None) -> str:
    """A step in 71 columns, with the time of day before it 80, as long as no number is out of the usual.

    Seconds, tokens and TFLOP/s are as `COLUMNS` says; events have all digits. What it `waited` for samples, in seconds,
    is a number out of the usual, and so is padding.
    """
    parts = [
        f"{record.step:>{len(str(total_steps))}}/{total_steps}",
        f"loss {record.loss:.{max(0, 5 - len(f'{record.loss:.0f}'))}f}",
        f"lr {_power(record.learning_rate)}",
        f"norm {_norm(record.grad_norm)}",
        f"{_seconds(record.seconds)}",
        f"{_short(record.tokens_per_second)} t/s",
    ]
    if record.tflops_per_process >= 0.1:  # a CPU's is no news
        parts.append(f"{_short(record.tflops_per_process * 1e12)}F")
    if record.memory_bytes is not None:
        parts.append(f"{_short(record.memory_bytes)}B")
    if record.padding:
        parts.append(f"padding {100 * record.padding:.2g}%")
    if waited is not None:
        parts.append(f"data wait {_seconds(waited)}")
    return " ".join(parts)


def _norm(value: float) -> str:
    return f"{value:.3g}" if value >= 99.5 else f"{value:#.2g}".rstrip(".")


def _power(value: float) -> str:
    """2.0e-5: as `e` writes it, without the zeros of the exponent."""
    number, _, power = f"{value:.1e}".partition("e")
    return f"{number}e{int(power)}" if power else number


def _seconds(value: float) -> str:
    """In four columns and the unit."""
    if value < 0.0995:
        return f"{value * 1000:.0f}ms"
    return f"{value:.2f}s" if value < 9.995 else f"{value:.1f}s" if value < 99.95 else f"{value:.0f}s"


def _short(value: float) -> str:
    """In two or three digits and the sign of a thousand, a million, ..."""
    size, sign = next(((size, sign) for size, sign in _SIGNS if value >= 0.9995 * size), (1.0, ""))
    return f"{value / size:.1f}{sign}" if value / size < 9.95 else f"{value / size:.0f}{sign}"


def outlook_line(record: StepRecord, total_steps: int, seconds_per_step: float, peak: float | None) -> str:
    """How far the run is, and how long it still takes; MFU only where the peak is known."""
    remaining = timedelta(seconds=round((total_steps - record.step) * seconds_per_step))
    share = f"{record.step / total_steps:.0%} of the steps, {record.tokens:,} tokens; {remaining} to go"
    return f"{share}, MFU {record.tflops_per_process / peak:.1%}" if peak else share


def validation_line(record: ValidatedRecord) -> str:
    """The loss of each group; of several a word each, which a terminal does not break."""
    samples = counted(record.groups[0].validation_samples, "sample")
    if len(record.groups) == 1:
        return f"{record.groups[0].source} after step {record.step}: loss {record.groups[0].loss:.4f} ({samples})"
    losses = " ".join(f"{each.source}={each.loss:.4f}" for each in record.groups)
    return f"validation after step {record.step}: loss {losses} ({samples} each)"


def profile_line(record: ProfileRecord) -> str:
    """Where the time of the profiled steps went."""
    steps = f"steps {record.first_step} to {record.step}, {sum(record.seconds.values()):.4g} s each"
    return f"profile of {steps}: {describe_breakdown(record.seconds)}; {record.trace}"


def saved_lines(record: SaveRecord) -> Iterator[str]:
    """What was saved and what it cost; what went for it; what went wrong on the way."""
    written = record.written
    why = "" if record.reason in ("interval", "end") else f", {record.reason}"
    cost = f"{readable(written.bytes)} in {record.write_seconds:.2f} s, waited {record.stall_seconds:.2f} s"
    yield f"saved {written.folder.name} ({cost}{why})"
    if written.removed:
        yield f"removed {', '.join(written.removed)}"
    if written.complaint:
        yield written.complaint
