"""USR1 or TERM: finish the step, save, exit with 75. One rank's signal is enough, and all stop at the same step."""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from megatron_patches.callbacks.callback import Callback
from megatron_patches.progress import Outcome

if TYPE_CHECKING:
    from megatron_patches.trainer import Trainer

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class StopOnSignal(Callback):
    """Ranks agree over the CPU while the next step runs, so no step waits for the question."""

    def __init__(self) -> None:
        self._received = 0
        for number in SIGNALS:
            signal.signal(number, self._remember)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(SIGNALS))  # node.py blocks USR1 until someone listens
        self._verdict = torch.zeros(1, dtype=torch.int32)
        self._asked: dist.Work | None = None

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received = number

    def after_update(self, trainer: Trainer) -> None:
        if self._asked is not None:
            self._asked.wait()
            if self._verdict.item():
                trainer.request_stop("asked to stop")
        self._verdict = torch.tensor([self._received], dtype=torch.int32)
        self._asked = dist.all_reduce(
            self._verdict, op=dist.ReduceOp.MAX, group=trainer.groups.control_group, async_op=True
        )

    def on_end(self, trainer: Trainer, outcome: Outcome) -> None:
        if self._asked is not None:
            self._asked.wait()
            self._asked = None

    def close(self) -> None:
        # A late second request must not kill a process that has already saved; SLURM sends TERM twice.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
