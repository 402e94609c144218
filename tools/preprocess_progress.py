"""How far `tools/preprocess` is: a bar on a terminal, a line every 10 s in a pipe, nothing for short work."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from megatron_patches.foreign.printable import printable

if TYPE_CHECKING:
    from data_tools.datasets.preprocessing.progress import Progress

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BEFORE_BAR = 1.0
_REDRAW_SECONDS = 0.1


class _Bar:
    """One line that is written over, of as many columns as the terminal has."""

    def __init__(self, columns: int) -> None:
        self._columns = columns

    def update(self, done: int, total: int, told: str) -> None:
        line = (f"{done / total:4.0%} " if total else "") + told
        while len(line) >= self._columns and ", " in line:
            line = line.rpartition(", ")[0]  # the last part matters least
        print(f"\r{line[: self._columns - 1]}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Meter:
    """What is shown on stderr; its methods are what preprocessing tells."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._next = self._started + (SECONDS_BEFORE_BAR if sys.stderr.isatty() else SECONDS_BETWEEN_LINES)
        self._first: Progress | None = None
        self._bar: _Bar | None = None
        self._stage = ""

    def show(self, progress: "Progress") -> None:
        """Shows progress, if it is time to."""
        now = time.monotonic()
        if self._first is None or progress.stage != self._stage:
            self._first, self._stage, self._started = progress, progress.stage, now
            return  # there is no speed yet
        if now < self._next:
            return
        if sys.stderr.isatty():
            self._next = now + _REDRAW_SECONDS
            self._draw(progress, now)
        else:
            self._next = now + SECONDS_BETWEEN_LINES
            print(self._line(progress, now), file=sys.stderr, flush=True)

    def _line(self, progress: "Progress", now: float) -> str:
        assert self._first is not None
        seconds = max(1e-9, now - self._started)
        speed = (progress.done_bytes - self._first.done_bytes) / seconds
        tokens = (progress.tokens - self._first.tokens) / seconds
        told = [f"{progress.stage} {short(progress.done_bytes)}B"]
        if progress.total_bytes:
            told[0] += f" of {short(progress.total_bytes)}B"
        told += [f"{speed / 1e6:,.1f} MB/s", f"{short(tokens)} tokens/s"]
        if progress.total_bytes and speed > 0:
            told.append(f"{_clock((progress.total_bytes - progress.done_bytes) / speed)} left")
        told.append(f"{short(progress.documents)} documents")
        return ", ".join(told)

    def _draw(self, progress: "Progress", now: float) -> None:
        if self._bar is None:
            self._bar = _Bar(shutil.get_terminal_size().columns)
        self._bar.update(progress.done_bytes, progress.total_bytes, self._line(progress, now))

    def tell(self, line: str) -> None:
        """A line for people."""
        if self._bar is not None:
            self._bar.clear()
        print(printable(line), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.clear()


@contextmanager
def metered() -> Iterator[Meter]:
    """A meter, whose bar is gone after the block."""
    meter = Meter()
    try:
        yield meter
    finally:
        meter.close()


def short(number: float) -> str:
    """Three digits and a letter: 1.23 M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
