"""How SIGTERM ends a process that writes: through what removes unfinished folders."""

import signal
import sys
from types import FrameType


def end_by_term() -> None:
    """From now on a SIGTERM raises SystemExit (143) in the main thread; without it the process would die at once."""
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    # SLURM sends one to every process of a job, and a launch that dies of it another: what removes must not be ended
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)
