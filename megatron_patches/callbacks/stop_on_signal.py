"""USR1 or TERM: finish the step, save, exit with 75. One rank's signal is enough, and all stop at the same step."""

import signal
from types import FrameType

from megatron_patches.callbacks.callback import Callback, TrainingLoop
from megatron_patches.parallel.votes import Question

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class StopOnSignal(Callback):
    """The ranks vote on the question (`votes.py`), so all stop at the same step."""

    def __init__(self, question: Question) -> None:
        self._received = 0
        self._question = question
        for number in SIGNALS:
            signal.signal(number, self._remember)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(SIGNALS))  # node.py blocks USR1 until someone listens

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._received = number

    def after_update(self, trainer: TrainingLoop) -> None:
        if self._question.verdict:
            trainer.request_stop("asked to stop")
        self._question.vote = self._received

    def close(self) -> None:
        # A late second request must not kill a process that has already saved; SLURM sends TERM twice.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
